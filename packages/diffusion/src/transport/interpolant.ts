import { ArgumentError } from '@tinyfusion/core';

/** Names of the {@link Interpolant}s. */
export type InterpolantName = 'linear' | 'gvp' | 'vp';

/** A path from noise (t = 0) to data (t = 1): xₜ = α(t)·data + σ(t)·noise. All functions are of float64 numbers. */
export interface Interpolant {
  readonly name: InterpolantName;
  alpha(t: number): number;
  /** dα/dt */
  alphaRate(t: number): number;
  sigma(t: number): number;
  /** dσ/dt */
  sigmaRate(t: number): number;
  /** (dα/dt)/α, without dividing by an α near 0. */
  logAlphaRate(t: number): number;
  /** (α'/α)·σ² − σ·σ', which multiplies the score in the velocity. */
  scoreWeight(t: number): number;
}

/** α = t, σ = 1 − t. Upstream: `ICPlan`. */
const linear: Interpolant = {
  name: 'linear',
  alpha: (t) => t,
  alphaRate: () => 1,
  sigma: (t) => 1 - t,
  sigmaRate: () => -1,
  logAlphaRate: (t) => 1 / t,
  scoreWeight: (t) => (1 - t) ** 2 / t + (1 - t),
};

/** α = sin(πt/2), σ = cos(πt/2): the variance stays that of the noise. Upstream: `GVPCPlan`. */
const gvp: Interpolant = {
  name: 'gvp',
  alpha: (t) => Math.sin((t * Math.PI) / 2),
  alphaRate: (t) => (Math.PI / 2) * Math.cos((t * Math.PI) / 2),
  sigma: (t) => Math.cos((t * Math.PI) / 2),
  sigmaRate: (t) => (-Math.PI / 2) * Math.sin((t * Math.PI) / 2),
  logAlphaRate: (t) => Math.PI / (2 * Math.tan((t * Math.PI) / 2)),
  scoreWeight: (t) => {
    const sigma = Math.cos((t * Math.PI) / 2);
    return (Math.PI / (2 * Math.tan((t * Math.PI) / 2))) * sigma ** 2 + (Math.PI / 2) * Math.sin((t * Math.PI) / 2) * sigma;
  },
};

/** The noise rates of the variance-preserving diffusion that the VP path follows (Song et al. 2021). */
const VP_MIN = 0.1;
const VP_MAX = 20;
const vpLogAlpha = (t: number): number => -0.25 * (1 - t) ** 2 * (VP_MAX - VP_MIN) - 0.5 * (1 - t) * VP_MIN;
const vpLogAlphaRate = (t: number): number => 0.5 * (1 - t) * (VP_MAX - VP_MIN) + 0.5 * VP_MIN;
const vpSigma = (t: number): number => Math.sqrt(-Math.expm1(2 * vpLogAlpha(t)));

/** The path of a variance-preserving diffusion with rates from 0.1 to 20. Upstream: `VPCPlan`. */
const vp: Interpolant = {
  name: 'vp',
  alpha: (t) => Math.exp(vpLogAlpha(t)),
  alphaRate: (t) => Math.exp(vpLogAlpha(t)) * vpLogAlphaRate(t),
  sigma: vpSigma,
  sigmaRate: (t) => (-Math.exp(2 * vpLogAlpha(t)) * vpLogAlphaRate(t)) / vpSigma(t),
  logAlphaRate: vpLogAlphaRate,
  scoreWeight: vpLogAlphaRate,
};

/** The paths of SiT (Ma et al. 2024, section 2.1). */
export const interpolants: Readonly<Record<InterpolantName, Interpolant>> = { linear, gvp, vp };

/** How much noise an SDE adds on its way: w(t) in dx = (velocity + w·score) dt + √(2w) dW. */
export type DiffusionForm = 'constant' | 'sbdm' | 'sigma' | 'linear' | 'decreasing' | 'increasing-decreasing';

const forms: Readonly<Record<DiffusionForm, (path: Interpolant, t: number, norm: number) => number>> = {
  constant: (_path, _t, norm) => norm,
  sbdm: (path, t, norm) => norm * path.scoreWeight(t),
  sigma: (path, t, norm) => norm * path.sigma(t),
  linear: (_path, t, norm) => norm * (1 - t),
  decreasing: (_path, t, norm) => 0.25 * (norm * Math.cos(Math.PI * t) + 1) ** 2,
  'increasing-decreasing': (_path, t, norm) => norm * Math.sin(Math.PI * t) ** 2,
};

/**
 * w(t) of a form (Ma et al. 2024, section 3.3). Upstream: `compute_diffusion`.
 * @throws ArgumentError where the form is unknown
 */
export function diffusionCoefficient(path: Interpolant, form: DiffusionForm, t: number, norm = 1): number {
  if (!Object.hasOwn(forms, form)) throw new ArgumentError('diffusion form', form, `one of ${Object.keys(forms).join(', ')}`);
  return forms[form](path, t, norm);
}

import { ArgumentError } from '@tinyfusion/core';

/** Names of the noise schedules. */
export type BetaSchedule = 'linear' | 'squared-cosine';

/**
 * βₜ for t = 0 … steps − 1, in float64.
 *
 * `'linear'` (Ho et al. 2020): 1e-4 to 0.02, both times 1000/steps. `'squared-cosine'` (Nichol & Dhariwal 2021):
 * 1 − ᾱ((t + 1)/steps)/ᾱ(t/steps) with ᾱ(s) = cos²((s + 0.008)/1.008 · π/2), at most 0.999. Upstream:
 * `get_named_beta_schedule`.
 */
export function betas(schedule: BetaSchedule, steps: number): Float64Array {
  if (!Number.isInteger(steps) || steps < 1) throw new ArgumentError('steps', steps, 'a positive integer');
  if (schedule === 'linear') {
    const from = (1000 / steps) * 1e-4;
    const to = (1000 / steps) * 0.02;
    return Float64Array.from({ length: steps }, (_, t) => (steps === 1 ? from : from + ((to - from) * t) / (steps - 1)));
  }
  if (schedule === 'squared-cosine') {
    return Float64Array.from({ length: steps }, (_, t) => Math.min(1 - cosineKept((t + 1) / steps) / cosineKept(t / steps), 0.999));
  }
  throw new ArgumentError('schedule', schedule, "'linear' or 'squared-cosine'");
}

/** ᾱ at the fraction s of the process, up to a factor. */
function cosineKept(s: number): number {
  return Math.cos(((s + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
}

import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { descending } from './ddpm.js';
import type { AsyncDenoiser, GaussianDiffusion } from './gaussian.js';
import { type Sampling, type SamplingOptions, noiseSourceOf, walk } from './sampling.js';
import { updated } from './updating.js';

/** Options of {@link ddim}. */
export interface DdimOptions extends SamplingOptions {
  /** 0: deterministic; 1: as much noise as DDPM. Default 0. */
  eta?: number;
}

/**
 * DDIM (Song et al. 2021, equation 12). With eta 0 no noise is drawn, unless a `noiseSource` replays upstream's draws,
 * of which there is one a step. Upstream: `ddim_sample_loop_progressive`.
 */
export function ddim(diffusion: GaussianDiffusion, denoiser: AsyncDenoiser, options: DdimOptions): Sampling {
  const { noise, eta = 0, clipDenoised = false, signal, noiseSource } = options;
  if (!(eta >= 0)) throw new ArgumentError('DdimOptions.eta', eta, 'a number from 0');
  const draw = eta > 0 || noiseSource !== undefined ? noiseSourceOf('ddim', options) : undefined;
  const { alphasCumprod, alphasCumprodPrev } = diffusion.tables;
  const n = noise.shape[0]!;
  return walk('sample', descending(diffusion.steps), diffusion.steps, noise, signal, (x, t) => {
    const steps = new Int32Array(n).fill(t);
    const now = alphasCumprod[t]!;
    const next = alphasCumprodPrev[t]!;
    const ratio = Math.sqrt((1 - next) / (1 - now));
    const taken = draw === undefined ? updated(diffusion, denoiser, x, t, { clipDenoised, next: [ratio, Math.sqrt(next) - ratio * Math.sqrt(now), 0] }) : undefined;
    if (taken !== undefined) return taken;
    return diffusion.predicting(denoiser, x, steps, { clipDenoised }, ({ xStart }) => {
      const epsilon = diffusion.epsilonFromStart(x, steps, xStart);
      const sigma = eta * Math.sqrt((1 - next) / (1 - now)) * Math.sqrt(1 - now / next);
      const mean = tf.add(tf.mul(xStart, Math.sqrt(next)), tf.mul(epsilon, Math.sqrt(Math.max(0, 1 - next - sigma * sigma))));
      const z = draw?.(x.shape);
      return { x: z === undefined || t === 0 || sigma === 0 ? mean : tf.add(mean, tf.mul(z, sigma)), xStart };
    });
  });
}

/** Options of {@link ddimInversion}. */
export interface DdimInversionOptions extends Pick<SamplingOptions, 'clipDenoised' | 'signal'> {
  /** The data to start from, `[N, …, C]`; borrowed. */
  noise: tf.Tensor;
  /** Step of the process that the data is at. Default 0. */
  from?: number;
}

/**
 * DDIM backwards, from data to the noise that leads to it (Song et al. 2021, section 4.3). The last step assumes
 * ᾱ = 0. Upstream: `ddim_reverse_sample`.
 */
export function ddimInversion(diffusion: GaussianDiffusion, denoiser: AsyncDenoiser, { noise: data, clipDenoised = false, from = 0, signal }: DdimInversionOptions): Sampling {
  const { alphasCumprodNext } = diffusion.tables;
  const n = data.shape[0]!;
  const total = diffusion.steps - from;
  if (!Number.isInteger(from) || from < 0 || total < 1) throw new ArgumentError('DdimInversionOptions.from', from, `an integer from 0 to ${diffusion.steps - 1}`);
  return walk('invert', Array.from({ length: total }, (_, i) => from + i), total, data, signal, (x, t) => {
    const steps = new Int32Array(n).fill(t);
    return diffusion.predicting(denoiser, x, steps, { clipDenoised }, ({ xStart }) => {
      const epsilon = diffusion.epsilonFromStart(x, steps, xStart);
      const next = alphasCumprodNext[t]!;
      return { x: tf.add(tf.mul(xStart, Math.sqrt(next)), tf.mul(epsilon, Math.sqrt(1 - next))), xStart };
    });
  });
}

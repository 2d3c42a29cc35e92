import * as tf from '@tensorflow/tfjs-core';
import type { AsyncDenoiser, GaussianDiffusion } from './gaussian.js';
import { type Sampling, type SamplingOptions, noiseSourceOf, walk } from './sampling.js';

/** Options of {@link ddpm}. */
export interface DdpmOptions extends SamplingOptions {
  /** What noise is multiplied by. Default 1. MAR samples with 0.95 to 1. */
  temperature?: number;
}

/**
 * Ancestral sampling (Ho et al. 2020, algorithm 2): xₜ₋₁ = mean + e^(logVariance/2) · noise, without noise at t = 0,
 * where a draw is taken from the source all the same, as upstream does. Upstream: `p_sample_loop_progressive`.
 */
export function ddpm(diffusion: GaussianDiffusion, denoiser: AsyncDenoiser, options: DdpmOptions): Sampling {
  const { noise, clipDenoised = false, temperature = 1, signal } = options;
  const draw = noiseSourceOf('ddpm', options);
  const n = noise.shape[0]!;
  return walk('sample', descending(diffusion.steps), diffusion.steps, noise, signal, (x, t) =>
    diffusion.predicting(denoiser, x, new Int32Array(n).fill(t), { clipDenoised }, ({ mean, logVariance, xStart }) => {
      const z = draw(x.shape);
      return { x: t === 0 ? mean : tf.add(mean, tf.mul(tf.mul(tf.exp(tf.mul(logVariance, 0.5)), z), temperature)), xStart };
    }),
  );
}

/** @yields steps − 1 … 0 */
export function* descending(steps: number): Generator<number> {
  for (let t = steps - 1; t >= 0; t--) yield t;
}

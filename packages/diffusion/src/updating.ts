import * as tf from '@tensorflow/tfjs-core';
import type { AsyncDenoiser, Denoiser, GaussianDiffusion } from './gaussian.js';

/** A solver's step that is linear: x₀ = start₀·x + start₁·ε, and the next x is next₀·x + next₁·x₀ + next₂·(x₀ one step before). */
export interface LinearUpdate {
  start: readonly [number, number];
  next: readonly [number, number, number];
}

/** A denoiser of ε that takes a solver's step into its own pass, as a compiled model does. */
export type UpdatingDenoiser = Denoiser & {
  /**
   * @param before x₀ of the step before; where there is none next₂ is 0
   * @returns the next x and x₀, which belong to the caller
   */
  update(x: tf.Tensor, t: tf.Tensor1D, before: tf.Tensor | undefined, step: LinearUpdate): { x: tf.Tensor; xStart: tf.Tensor };
};

/**
 * A linear step in the denoiser's own pass.
 * @param next as {@link LinearUpdate}'s
 * @returns `undefined` where the denoiser has no such pass, or the process is not linear in ε
 */
export function updated(diffusion: GaussianDiffusion, denoiser: AsyncDenoiser, x: tf.Tensor, t: number, { clipDenoised, before, next }: { clipDenoised: boolean | number; before?: tf.Tensor | undefined; next: LinearUpdate['next'] }): { x: tf.Tensor; xStart: tf.Tensor } | undefined {
  if (!('update' in denoiser) || diffusion.prediction !== 'epsilon' || clipDenoised !== false) return undefined;
  const { update } = denoiser as UpdatingDenoiser;
  const alpha = diffusion.tables.alphasCumprod[t]!;
  return tf.tidy(() => update(x, tf.tensor1d(new Float32Array(x.shape[0]!).fill(diffusion.timestepMap[t]!)), before, { start: [Math.sqrt(1 / alpha), -Math.sqrt(1 / alpha - 1)], next }));
}

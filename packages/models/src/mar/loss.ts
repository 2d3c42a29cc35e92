import { ArgumentError, type Rng } from '@tinyfusion/core';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { type Float, axes } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import type { MAR, MARForwardOptions } from './mar.js';
import { TokenMask } from './token-mask.js';

/** Everything random in one training step of MAR. */
export interface MARDraws {
  mask: TokenMask;
  /** For each sample 1 where its class is dropped. */
  drop: Float32Array;
  /** Timestep of each row: `diffusionBatchMul` times over, every masked token of every sample. */
  t: Int32Array;
  /** Noise of each of these rows, row-major, C values a row. */
  noise: Float32Array;
}

/** The process MAR's head is trained on. Upstream: `create_diffusion(timestep_respacing="", noise_schedule="cosine")`. */
export const marDiffusion = (): GaussianDiffusion => new GaussianDiffusion({ schedule: 'squared-cosine' });

/**
 * A masking ratio: a Gaussian around 1 of deviation 0.25, cut to [lowest, 1] (Li et al. 2024, section 4.2). Upstream:
 * `truncnorm((lowest − 1)/0.25, 0, loc=1, scale=0.25)`.
 * @throws ArgumentError where `lowest` is not in [0, 1): none would be drawn
 */
export function drawMaskRatio(rng: Rng, lowest: number): number {
  if (!(lowest >= 0 && lowest < 1)) throw new ArgumentError('drawMaskRatio: lowest', lowest, 'a number in [0, 1)');
  for (;;) for (const z of rng.normal(8)) if (z <= 0 && 1 + 0.25 * z >= lowest) return 1 + 0.25 * z;
}

/** Draws what one training step on `samples` images needs: one masking ratio for all, an order for each, and so on. */
export function drawMAR(mar: MAR, rng: Rng, samples: number): MARDraws {
  const { maskRatioMin, labelDropProb, diffusionBatchMul } = mar.config;
  const orders = Array.from({ length: samples }, () => rng.permutation(mar.tokens));
  const mask = TokenMask.ofOrders(orders, Math.ceil(mar.tokens * drawMaskRatio(rng, maskRatioMin)));
  const drop = rng.uniform(samples).map((u) => (u < labelDropProb ? 1 : 0));
  const rows = diffusionBatchMul * samples * mask.maskedCount;
  return { mask, drop, t: rng.integers(0, 1000, rows), noise: rng.normal(rows * mar.tokenChannels) };
}

/** The head's inputs of a step: masked tokens, repeated, before and after noise; each `[rows, C]`. Inside a tidy. */
export function marHeadInputs(mar: MAR, diffusion: GaussianDiffusion, latents: Float<'N H W C'>, { mask, t, noise }: MARDraws): { x0: tf.Tensor2D; x: tf.Tensor2D; noise: tf.Tensor2D } {
  const x0 = mar.maskedRows(mar.patchify(latents), mask);
  const drawn = tf.tensor2d(noise, x0.shape);
  return { x0, x: diffusion.qSample(x0, t, drawn) as tf.Tensor2D, noise: drawn };
}

/**
 * MAR's training loss: how well the head denoises each masked token, given what the transformer makes of the others.
 * Where upstream runs the head on every token and throws away what it says of the known ones, here it runs on the masked
 * ones. Upstream: `MAR.forward`.
 *
 * @param latents `[N, H, W, C]` scaled latents
 * @param y `[N]` int32 labels
 * @param diffusion {@link marDiffusion}, made once
 * @returns the mean over masked tokens
 */
export function marLoss(mar: MAR, diffusion: GaussianDiffusion, latents: Float<'N H W C'>, y: tf.Tensor1D, draws: MARDraws, options: MARForwardOptions = {}): tf.Scalar {
  const { N } = axes('marLoss: latents', latents, 'N H W C');
  axes('marLoss: y', y, 'N', { N });
  return tf.tidy(() => {
    const { x0, x, noise } = marHeadInputs(mar, diffusion, latents, draws);
    const output = mar.diffloss.net.forward(x, tf.tensor1d(Float32Array.from(draws.t)), mar.headConditions(latents, y, draws, options));
    return tf.mean(diffusion.lossTerms(output, x0, x, draws.t, noise).loss) as tf.Scalar;
  });
}

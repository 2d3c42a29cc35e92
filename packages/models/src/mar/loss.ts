import { type Rng } from '@tinyfusion/core';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { type Float, axes, takeRows } from '@tinyfusion/kernels';
import type { HookOptions } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import type { MAR } from './mar.js';
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
 */
export function drawMaskRatio(rng: Rng, lowest: number): number {
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

/** Options of {@link marLoss}. */
export interface MARLossOptions extends HookOptions {
  /** Switches the model's dropout on and draws it. Default: none. */
  dropout?: Rng | undefined;
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
export function marLoss(mar: MAR, diffusion: GaussianDiffusion, latents: Float<'N H W C'>, y: tf.Tensor1D, { mask, drop, t, noise }: MARDraws, options: MARLossOptions = {}): tf.Scalar {
  const { N } = axes('marLoss: latents', latents, 'N H W C');
  axes('marLoss: y', y, 'N', { N });
  return tf.tidy(() => {
    const tokens = mar.patchify(latents);
    const known = mar.encode(tokens, mask, mar.classEmbedding(y, tf.tensor1d(drop)), options);
    const z = mar.decode(known, mask, options);
    const masked = mask.maskedRows();
    const repeat = (x: tf.Tensor3D): tf.Tensor2D => tf.tile(takeRows(tf.reshape(x, [N * mar.tokens, -1]), masked), [mar.config.diffusionBatchMul, 1]);
    const [target, condition] = [repeat(tokens), repeat(z)];
    const { loss } = diffusion.trainingLosses((x, time) => mar.diffloss.net.forward(x as tf.Tensor2D, time, condition), target, t, tf.tensor2d(noise, target.shape));
    return tf.mean(loss) as tf.Scalar;
  });
}

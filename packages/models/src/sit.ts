import type { Float } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { DiT, type DiTForwardOptions } from './dit.js';

/**
 * Scalable interpolant transformer (Ma et al. 2024): DiT's network, unchanged, as the velocity of a transport. Times are
 * in [0, 1], and where the checkpoint has channels for a variance (`learnSigma`) they are cut off. Upstream: `SiT` in
 * SiT's `models.py`.
 */
export class SiT extends DiT {
  /** Channels of the output: those of the input. */
  override get outChannels(): number {
    return this.config.inChannels;
  }

  /**
   * The model's velocity (or noise, or score, as it was trained).
   *
   * @param x `[N, H, W, C]` a point on the path from noise to data
   * @param t `[N]` times in [0, 1], not scaled
   * @param y `[N]` int32 labels in [0, numClasses], the last being the null class
   * @returns `[N, H, W, C]`
   * @throws ShapeError where a tensor does not fit the configuration
   */
  override forward(x: Float<'N H W C'>, t: tf.Tensor1D, y: tf.Tensor1D, options: DiTForwardOptions = {}): Float<'N H W C'> {
    return tf.tidy(() => {
      const output = super.forward(x, t, y, options);
      const { inChannels, learnSigma } = this.config;
      return learnSigma ? tf.slice(output, [0, 0, 0, 0], [-1, -1, -1, inChannels]) : output;
    });
  }
}

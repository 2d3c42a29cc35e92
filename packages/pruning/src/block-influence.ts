import type { BlockHook } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';

/**
 * ShortGPT's measure (Men et al. 2024): the mean over tokens of the cosine similarity between a block's input and its
 * output. A high similarity marks a block that changes little. Upstream: `prune_by_score.py`.
 */
export class BlockInfluence {
  readonly #sums: tf.Scalar[] = [];
  #batches = 0;

  /** Measures while the model runs; call {@link endBatch} after each forward pass. */
  readonly hook: BlockHook = (site, x, run) => {
    const y = run(x);
    const similarity = tf.tidy(() => {
      const dot = tf.sum(tf.mul(x, y), -1);
      const lengths = tf.mul(tf.maximum(tf.norm(x, 2, -1), 1e-8), tf.maximum(tf.norm(y, 2, -1), 1e-8));
      const mean = tf.mean(tf.div(dot, lengths)) as tf.Scalar;
      const previous = this.#sums[site.index];
      return tf.keep(previous === undefined ? tf.clone(mean) : tf.add(previous, mean)) as tf.Scalar;
    });
    this.#sums[site.index]?.dispose();
    this.#sums[site.index] = similarity;
    return y;
  };

  /** Counts a batch. */
  endBatch(): void {
    this.#batches += 1;
  }

  /** Mean similarity of each block over the batches, and an end to the measurement. */
  async similarities(): Promise<number[]> {
    const values = await Promise.all(this.#sums.map(async (s) => (await s.data())[0]! / this.#batches));
    this.dispose();
    return values;
  }

  dispose(): void {
    tf.dispose(this.#sums);
    this.#sums.length = 0;
    this.#batches = 0;
  }
}

import type { BlockHook } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';

/**
 * Flux-Lite's measure (Freepik 2024): the mean squared difference between a block's input and its output. A small one
 * marks a block that changes little; `leastRedundant` takes it with its sign turned.
 */
export class BlockError {
  readonly #sums: tf.Scalar[] = [];
  #batches = 0;

  /** Measures while the model runs; call {@link endBatch} after each forward pass. */
  readonly hook: BlockHook = (site, x, run) => {
    const y = run(x);
    const error = tf.tidy(() => {
      const mean = tf.mean(tf.square(tf.sub(y, x))) as tf.Scalar;
      const previous = this.#sums[site.index];
      return tf.keep(previous === undefined ? mean : tf.add(previous, mean)) as tf.Scalar;
    });
    this.#sums[site.index]?.dispose();
    this.#sums[site.index] = error;
    return y;
  };

  /** Counts a batch. */
  endBatch(): void {
    this.#batches += 1;
  }

  /** Mean error of each block over the batches, and an end to the measurement. */
  async errors(): Promise<number[]> {
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

import { ArgumentError } from '@tinyfusion/core';
import type { BlockHook } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';

/** A number for each block, averaged over batches while a model runs. */
export abstract class BlockMeasure {
  readonly #sums: tf.Scalar[] = [];
  #batches = 0;

  /** What one block did to its input, both `[N, T, D]`; inside a tidy. */
  protected abstract measure(x: tf.Tensor3D, y: tf.Tensor3D): tf.Scalar;

  /** Measures while the model runs; call {@link endBatch} after each forward pass. */
  readonly hook: BlockHook = (site, x, run) => {
    const y = run(x);
    const sum = tf.tidy(() => {
      const value = this.measure(x, y);
      const previous = this.#sums[site.index];
      return tf.keep(previous === undefined ? tf.clone(value) : tf.add(previous, value)) as tf.Scalar;
    });
    this.#sums[site.index]?.dispose();
    this.#sums[site.index] = sum;
    return y;
  };

  /** Counts a batch. */
  endBatch(): void {
    this.#batches += 1;
  }

  /**
   * The mean of each block over the batches, and an end to the measurement.
   * @throws ArgumentError where no batch was ended, or a mean is not finite
   */
  protected async means(): Promise<number[]> {
    if (this.#batches === 0) throw new ArgumentError(`${this.constructor.name}: batches`, 0, 'at least one; call endBatch after each forward pass');
    const values = await Promise.all(this.#sums.map(async (s) => (await s.data())[0]! / this.#batches));
    this.dispose();
    const wrong = values.findIndex((value) => !Number.isFinite(value));
    if (wrong >= 0) throw new ArgumentError(`${this.constructor.name}: measure of block ${wrong}`, values[wrong], 'a finite number; the model or its inputs hold values that are none');
    return values;
  }

  dispose(): void {
    tf.dispose(this.#sums);
    this.#sums.length = 0;
    this.#batches = 0;
  }
}

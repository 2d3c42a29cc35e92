import * as tf from '@tensorflow/tfjs-core';
import { BlockMeasure } from './block-measure.js';

/**
 * Flux-Lite's measure (Freepik 2024): the mean squared difference between a block's input and its output. A small one
 * marks a block that changes little; `leastRedundant` takes it with its sign turned.
 */
export class BlockError extends BlockMeasure {
  protected override measure(x: tf.Tensor3D, y: tf.Tensor3D): tf.Scalar {
    return tf.mean(tf.square(tf.sub(y, x))) as tf.Scalar;
  }

  /** Mean error of each block over the batches, and an end to the measurement. */
  errors(): Promise<number[]> {
    return this.means();
  }
}

import * as tf from '@tensorflow/tfjs-core';
import { BlockMeasure } from './block-measure.js';

/**
 * ShortGPT's measure (Men et al. 2024): the mean over tokens of the cosine similarity between a block's input and its
 * output. A high similarity marks a block that changes little. Upstream: `prune_by_score.py`.
 */
export class BlockInfluence extends BlockMeasure {
  protected override measure(x: tf.Tensor3D, y: tf.Tensor3D): tf.Scalar {
    const dot = tf.sum(tf.mul(x, y), -1);
    const lengths = tf.mul(tf.maximum(tf.norm(x, 2, -1), 1e-8), tf.maximum(tf.norm(y, 2, -1), 1e-8));
    return tf.mean(tf.div(dot, lengths)) as tf.Scalar;
  }

  /** Mean similarity of each block over the batches, and an end to the measurement. */
  similarities(): Promise<number[]> {
    return this.means();
  }
}

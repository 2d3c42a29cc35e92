import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { axes } from './shape.js';

/**
 * Rows of a table. The gradient by the table is a product with one-hot rows, because tfjs's own needs a kernel that its
 * WASM backend lacks; tables here have thousands of rows at most.
 *
 * @param table `[K, D]`
 * @param indices int32 `[N]`, each in [0, K)
 * @returns `[N, D]`
 * @throws ShapeError where ranks do not fit; ArgumentError where an index is out of range, but on WebGPU, where to look
 * would be to wait for the device: there such a row is zeros
 */
export function embedding(table: tf.Tensor2D, indices: tf.Tensor1D): tf.Tensor2D {
  const { K } = axes('embedding: table', table, 'K D');
  axes('embedding: indices', indices, 'N');
  if (tf.getBackend() !== 'webgpu') {
    const wrong = indices.dataSync().find((i) => !(i >= 0 && i < K));
    if (wrong !== undefined) throw new ArgumentError('embedding: indices', wrong, `labels from 0 to ${K - 1}`);
  }
  const lookUp = tf.customGrad((weight, save) => {
    (save as tf.GradSaveFunc)([indices]);
    // one-hot rows as int32 first: tfjs's WASM kernel writes integers whatever type is asked for
    return {
      value: tf.gather(weight as tf.Tensor2D, indices),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => [tf.tidy(() => tf.matMul(tf.cast(tf.oneHot(saved[0] as tf.Tensor1D, K), 'float32'), dy as tf.Tensor2D, true, false))],
    };
  });
  return lookUp(table) as tf.Tensor2D;
}

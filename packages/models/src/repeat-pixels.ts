import * as tf from '@tensorflow/tfjs-core';

/** Each pixel as a 2×2 block: nearest-neighbour upsampling. */
export function repeatPixels(x: tf.Tensor4D): tf.Tensor4D {
  const [n, h, w, c] = x.shape;
  const wide = tf.concat([tf.reshape(x, [n * h, w, 1, c]), tf.reshape(x, [n * h, w, 1, c])], 2); // [N·H, W, 2, C]
  const rows = tf.reshape(wide, [n * h, 1, 2 * w * c]);
  return tf.reshape(tf.concat([rows, rows], 1), [n, 2 * h, 2 * w, c]);
}

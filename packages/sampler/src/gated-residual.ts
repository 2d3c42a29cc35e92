import * as tf from '@tensorflow/tfjs-core';

/**
 * y · m + x · (1 − m), one m a sample.
 * @param x `[N, T, D]` @param y `[N, T, D]` @param m `[N]`
 */
export function gatedResidual(x: tf.Tensor3D, y: tf.Tensor3D, m: tf.Tensor1D): tf.Tensor3D {
  return tf.tidy(() => {
    const gate = tf.reshape(m, [m.shape[0], 1, 1]);
    return tf.add(x, tf.mul(tf.sub(y, x), gate)) as tf.Tensor3D;
  });
}

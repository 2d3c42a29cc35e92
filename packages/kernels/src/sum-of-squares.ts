import * as tf from '@tensorflow/tfjs-core';

/** Kernel name of {@link sumOfSquares}: input x; a scalar. */
export const SUM_OF_SQUARES = 'TinyFusionSumOfSquares';

/** Σ x² over all elements; not differentiable. */
export function sumOfSquares(x: tf.Tensor): tf.Scalar {
  if (tf.getKernel(SUM_OF_SQUARES, tf.getBackend()) !== undefined) return tf.engine().runKernel(SUM_OF_SQUARES, { x }) as unknown as tf.Scalar;
  return tf.tidy(() => tf.sum(tf.square(x)));
}

import * as tf from '@tensorflow/tfjs-core';

/** Kernel name of {@link sumOfSquares}: input x; a scalar. */
export const SUM_OF_SQUARES = 'TinyFusionSumOfSquares';
/** Kernel name of {@link sumOfSquaresOfAll}: inputs x0, x1, …; a scalar. */
export const SUM_OF_SQUARES_OF_ALL = 'TinyFusionSumOfSquaresOfAll';

/** Σ x² over all elements; not differentiable. */
export function sumOfSquares(x: tf.Tensor): tf.Scalar {
  if (x.dtype === 'float32' && tf.getKernel(SUM_OF_SQUARES, tf.getBackend()) !== undefined) return tf.engine().runKernel(SUM_OF_SQUARES, { x }) as unknown as tf.Scalar;
  return tf.tidy(() => tf.sum(tf.square(x)));
}

/** Σ x² over all elements of all tensors, however many; not differentiable. (tfjs's `addN` binds all its inputs at once, which WebGPU devices refuse.) */
export function sumOfSquaresOfAll(xs: readonly tf.Tensor[]): tf.Scalar {
  if (xs.length === 0) return tf.scalar(0);
  if (tf.getKernel(SUM_OF_SQUARES_OF_ALL, tf.getBackend()) !== undefined) return tf.engine().runKernel(SUM_OF_SQUARES_OF_ALL, Object.fromEntries(xs.map((x, i) => [`x${i}`, x]))) as unknown as tf.Scalar;
  return tf.tidy(() => xs.map(sumOfSquares).reduce((a, b) => tf.add(a, b)));
}

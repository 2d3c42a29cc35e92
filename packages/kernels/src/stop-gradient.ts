import * as tf from '@tensorflow/tfjs-core';

/** x, through which no gradient flows (`detach` in PyTorch). */
export function stopGradient<T extends tf.Tensor>(x: T): T {
  const op = tf.customGrad((y) => ({ value: tf.clone(y as tf.Tensor), gradFunc: (dy: tf.Tensor) => tf.zerosLike(dy) }));
  return op(x) as T;
}

import * as tf from '@tensorflow/tfjs-core';

/** `hard`, with the gradient of `soft` (straight-through, Bengio et al. 2013). Both have one shape; `hard` gets no gradient. */
export function straightThrough<T extends tf.Tensor>(hard: T, soft: T): T {
  const op = tf.customGrad(() => ({ value: tf.clone(hard), gradFunc: (dy: tf.Tensor) => tf.clone(dy) }));
  return op(soft) as T;
}

import * as tf from '@tensorflow/tfjs-core';

/** ‖W + s·BA‖ of each row, `[out]`. */
export function rowNorms(weight: tf.Tensor2D, a: tf.Tensor2D, b: tf.Tensor2D, scale: number): tf.Tensor1D {
  return tf.tidy(() => tf.sqrt(tf.sum(tf.square(tf.add(weight, tf.mul(tf.matMul(b, a), scale))), 1)) as tf.Tensor1D);
}

/**
 * m / ‖W + s·BA‖, `[out]`: what DoRA multiplies each output with. The norm is a constant in gradients (Liu et al. 2024,
 * section 4.3; so does PEFT). A row of zeros has factor 0, where PEFT has NaN.
 * @param norms the norms, a fresh tensor; nothing of its computation is kept for gradients
 */
export function magnitudeFactor(magnitude: tf.Tensor1D, norms: () => tf.Tensor1D): tf.Tensor1D {
  const op = tf.customGrad((m, save) => {
    const n = norms();
    (save as tf.GradSaveFunc)([n]);
    return { value: tf.divNoNan(m as tf.Tensor, n), gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => tf.divNoNan(dy, saved[0]!) };
  });
  return op(magnitude) as tf.Tensor1D;
}

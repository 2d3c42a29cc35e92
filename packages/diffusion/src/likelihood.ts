import { preciseTanh } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

/** Mean over every axis but the first. @returns `[N]` */
export function meanFlat(x: tf.Tensor): tf.Tensor1D {
  return tf.tidy(() => tf.mean(tf.reshape(x, [x.shape[0]!, -1]), 1) as tf.Tensor1D);
}

/** KL(N(mean1, e^logVariance1) ‖ N(mean2, e^logVariance2)) element by element, in nats. Shapes broadcast. */
export function normalKL(mean1: tf.Tensor, logVariance1: tf.Tensor, mean2: tf.Tensor, logVariance2: tf.Tensor): tf.Tensor {
  return tf.tidy(() => {
    const difference = tf.sub(logVariance2, logVariance1);
    const distance = tf.mul(tf.square(tf.sub(mean1, mean2)), tf.exp(tf.neg(logVariance2)));
    return tf.mul(tf.add(tf.add(tf.sub(difference, 1), tf.exp(tf.neg(difference))), distance), 0.5);
  });
}

/**
 * Log probability of the bin of width 2/255 around x under N(mean, e^(2·logScale)), for x in [-1, 1] with open bins at
 * the ends; probabilities are clamped at 1e-12 and the normal distribution function is the tanh approximation.
 * Upstream: `discretized_gaussian_log_likelihood`.
 */
export function discretisedLogLikelihood(x: tf.Tensor, mean: tf.Tensor, logScale: tf.Tensor): tf.Tensor {
  return tf.tidy(() => {
    const centred = tf.sub(x, mean);
    const inverse = tf.exp(tf.neg(logScale));
    const upper = normalCDF(tf.mul(inverse, tf.add(centred, 1 / 255)));
    const lower = normalCDF(tf.mul(inverse, tf.sub(centred, 1 / 255)));
    const inside = tf.where(tf.greater(x, 0.999), log(tf.sub(1, lower)), log(tf.sub(upper, lower)));
    return tf.where(tf.less(x, -0.999), log(upper), inside);
  });
}

/** ln p, p at least 1e-12. */
function log(p: tf.Tensor): tf.Tensor {
  return tf.log(tf.maximum(p, 1e-12));
}

/** (1 + tanh(√(2/π)(x + 0.044715x³)))/2. */
function normalCDF(x: tf.Tensor): tf.Tensor {
  return tf.mul(tf.add(preciseTanh(tf.mul(tf.add(x, tf.mul(tf.mul(tf.square(x), x), 0.044715)), Math.sqrt(2 / Math.PI))), 1), 0.5);
}

import * as tf from '@tensorflow/tfjs-core';

/** Below this, 1 − p counts as this in log(1 − p): a layer that was all but taken is not taken again. */
const LEAST = 1e-7;

/**
 * Exactly k ones in each row, at its highest values: Gumbel-top-k sampling where the rows are logits plus Gumbel noise
 * (Kool et al. 2019; without replacement, with the probabilities of Plackett and Luce).
 * @param x `[N, M]` @returns `[N, M]`
 */
export function topKHot(x: tf.Tensor2D, k: number): tf.Tensor2D {
  return tf.tidy(() => {
    const hot = tf.cast(tf.oneHot(tf.topk(x, k).indices as tf.Tensor2D, x.shape[1]), 'float32');
    // times 1: tfjs-webgpu casts by name only, and cannot transpose the integers beneath, as this sum does
    return tf.sum(tf.mul(hot, 1), 1) as tf.Tensor2D;
  });
}

/**
 * The relaxation of {@link topKHot}: Σⱼ pʲ for j = 1 … k, where pʲ = softmax(αʲ/τ), α¹ = x, αʲ⁺¹ = αʲ + log(1 − pʲ)
 * (Xie & Ermon 2019, "Reparameterizable subset sampling via continuous relaxations"). Each row adds up to k, and tends to the top k as τ → 0.
 * @param x `[N, M]` @returns `[N, M]`
 */
export function relaxedTopK(x: tf.Tensor2D, k: number, tau: number): tf.Tensor2D {
  return tf.tidy(() => {
    let alpha: tf.Tensor = x;
    const picks: tf.Tensor[] = [];
    for (let j = 0; j < k; j++) {
      const p = tf.softmax(tf.div(alpha, tau));
      picks.push(p);
      if (j + 1 < k) alpha = tf.add(alpha, tf.log(tf.maximum(tf.sub(1, p), LEAST)));
    }
    return tf.addN(picks) as tf.Tensor2D;
  });
}

import type { Rng } from '@tinyfusion/core';
import { repeatable } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';

/** x with each value zeroed with probability `p`, the others divided by 1 − p, so that the mean stays. */
export function dropout<T extends tf.Tensor>(x: T, p: number, rng: Rng): T {
  const keep = Math.fround(1 / (1 - p));
  return tf.tidy(() => tf.mul(x, tf.tensor(repeatable(rng).uniform(x.size).map((u) => (u < p ? 0 : keep)), x.shape)) as T);
}

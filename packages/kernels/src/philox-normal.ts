import type { Rng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/** Kernel name of {@link philoxNormal}: no input; attributes key (two words), counter, shape. */
export const PHILOX_NORMAL = 'TinyFusionPhiloxNormal';

/**
 * Draws from N(0, 1), on the device where the backend can and the stream is the default one, whose words are a function of
 * key and counter alone (Philox 4×32-10, Salmon et al. 2011). The words are those of `rng.normal`, bit by bit; the normals
 * are computed in float32 and differ from its by a few units in the last place. The stream moves on as it always does.
 */
export function philoxNormal(rng: Rng, shape: readonly number[]): tf.Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  const state = rng.state();
  if (state.kind !== 'philox4x32' || rng.skipNormal === undefined || tf.getKernel(PHILOX_NORMAL, tf.getBackend()) === undefined) return tf.tensor(rng.normal(count), [...shape]);
  rng.skipNormal(count);
  return tf.engine().runKernel(PHILOX_NORMAL, {}, { key: [...state.key], counter: state.counter, shape: [...shape] }) as unknown as tf.Tensor;
}

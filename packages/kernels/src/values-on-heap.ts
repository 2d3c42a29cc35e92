import type { BackendWasm } from '@tensorflow/tfjs-backend-wasm';
import * as tf from '@tensorflow/tfjs-core';
import { addressOf } from './wasm-call.js';

/**
 * A tensor's values where they lie, without the copy that `data()` makes, which for many megabytes costs more than the
 * copying: the memory is new each time. `undefined` on other backends than WASM.
 *
 * @param tensor of float32
 * @returns a view to read or copy at once: it is gone when the next tensor is made
 */
export function valuesOnHeap(tensor: tf.Tensor): Float32Array | undefined {
  if (tf.getBackend() !== 'wasm' || tensor.dtype !== 'float32') return undefined;
  const backend = tf.backend() as BackendWasm;
  const { HEAPU8 } = backend.wasm as unknown as { HEAPU8: Uint8Array };
  return new Float32Array(HEAPU8.buffer, addressOf(backend, tensor), tensor.size);
}

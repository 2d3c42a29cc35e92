import type { BackendWasm } from '@tensorflow/tfjs-backend-wasm';
import * as tf from '@tensorflow/tfjs-core';
import { addressOf, isOnHeap } from './wasm-call.js';

/**
 * A tensor's values where they lie, without the copy that `data()` makes, which for many megabytes costs more than the
 * copying: the memory is new each time.
 *
 * @param tensor of any shape; borrowed
 * @returns a view of its `size` values, row by row, to read or copy at once: it is gone when the next tensor is made.
 * `undefined` where the tensor is not of float32, or not on the heap of tfjs's WASM backend
 */
export function valuesOnHeap(tensor: tf.Tensor): Float32Array | undefined {
  if (tf.getBackend() !== 'wasm' || tensor.dtype !== 'float32') return undefined;
  const backend = tf.backend() as BackendWasm;
  const { HEAPU8 } = backend.wasm as unknown as { HEAPU8: Uint8Array };
  return isOnHeap(backend, tensor) ? new Float32Array(HEAPU8.buffer, addressOf(backend, tensor), tensor.size) : undefined;
}

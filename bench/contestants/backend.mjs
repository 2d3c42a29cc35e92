// Starts tfjs's WASM backend, with our kernels or without.
import '@tensorflow/tfjs';
import * as tf from '@tensorflow/tfjs-core';
import { meanMagnitude } from './numbers.mjs';

/** @param options `kernels`: `'ours'` or `'stock'` */
export async function startBackend({ kernels = 'ours' }) {
  if (kernels === 'ours') {
    const { useBackend } = await import('@tinyfusion/kernels');
    await useBackend({ prefer: 'wasm' });
    return;
  }
  await import('@tensorflow/tfjs-backend-wasm');
  if (!(await tf.setBackend('wasm')) || tf.getBackend() !== 'wasm') throw new Error('tfjs cannot start its WASM backend');
}

/** Watches the bytes of all values that tensors have, from one kernel to the next; what tensors share counts once. */
export function peakBytes() {
  const engine = tf.engine();
  const { trackTensor, removeDataId } = engine;
  const sizes = new Map(); // of values by id, from now on
  let [now, peak] = [0, 0];
  engine.trackTensor = function (tensor, backend) {
    trackTensor.call(this, tensor, backend);
    if (sizes.has(tensor.dataId)) return;
    sizes.set(tensor.dataId, tensor.size * 4);
    now += tensor.size * 4;
    peak = Math.max(peak, now);
  };
  engine.removeDataId = function (dataId, backend) {
    removeDataId.call(this, dataId, backend);
    now -= sizes.get(dataId) ?? 0;
    sizes.delete(dataId);
  };
  return { reset: () => void (peak = now), bytes: () => peak };
}

/** What a run returns for a tensor: the number behind it, which all contestants must agree on; the tensor is disposed. */
export function checked(tensor) {
  const check = async () => {
    const number = meanMagnitude(await tensor.data());
    tensor.dispose();
    return number;
  };
  return { check };
}

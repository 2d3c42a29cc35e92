import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { useBackend } from '../src/index.js';
import type { Internals } from '../src/webgpu/internals.js';

type Kinds<T> = { [K in keyof T]-?: T[K] extends (...args: never[]) => unknown ? 'function' : 'value' };

// a name that tfjs no longer has would be added to it without a word; the type makes this list complete
const members: Kinds<Internals> = {
  device: 'value',
  queue: 'value',
  tensorMap: 'value',
  bufferManager: 'value',
  commandEncoder: 'value',
  computePassEncoder: 'value',
  dispatchCountInPass: 'value',
  activeTimers: 'value',
  supportTimestampQuery: 'value',
  querySet: 'value',
  querySetCount: 'value',
  ensureCommandEncoderReady: 'function',
  endComputePassEncoder: 'function',
  submitQueue: 'function',
  getQueryTime: 'function',
  makeTensorInfo: 'function',
  uploadToGPU: 'function',
  disposeData: 'function',
  incRef: 'function',
  read: 'function',
  readSync: 'function',
  readToGPU: 'function',
  shouldExecuteOnCPU: 'function',
  recordAndSubmit: 'function',
};

it('finds in tfjs what the kernels put themselves between', async () => {
  await useBackend({ prefer: 'webgpu' });
  const backend = tf.backend() as unknown as Record<string, unknown>;
  const own = Object.getPrototypeOf(backend) as Record<string, unknown>;
  for (const [name, kind] of Object.entries(members)) {
    expect(name in backend || name === 'activeTimers' || name === 'querySet', name).toBe(true);
    // what this package replaced stands on the instance; tfjs's own must be there beneath it
    if (kind === 'function') expect(typeof own[name], name).toBe('function');
  }
  const manager = backend['bufferManager'] as Record<string, unknown>;
  const managers = Object.getPrototypeOf(manager) as Record<string, unknown>;
  for (const name of ['acquireBuffer', 'releaseBuffer']) expect(typeof managers[name], name).toBe('function');
  for (const name of ['numBytesUsed', 'numBytesAllocated', 'numFreeBuffers']) expect(typeof manager[name], name).toBe('number');
});

import { BackendError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { linear, useBackend } from '../src/index.js';

const deviceOf = (): GPUDevice => (tf.backend() as unknown as { device: GPUDevice }).device;

it('has every feature and limit of the adapter that kernels can use', async () => {
  await useBackend({ prefer: 'webgpu' });
  const adapter = (await navigator.gpu.requestAdapter())!;
  for (const feature of ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix', 'timestamp-query'] as GPUFeatureName[]) expect(deviceOf().features.has(feature), feature).toBe(adapter.features.has(feature));
  for (const limit of ['maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup'] as const) expect(deviceOf().limits[limit], limit).toBe(adapter.limits[limit]);
});

it('refuses what cannot be bound before it runs, with the sizes, whoever would make it', async () => {
  await useBackend({ prefer: 'webgpu' });
  const most = Math.min(deviceOf().limits.maxBufferSize, deviceOf().limits.maxStorageBufferBindingSize);
  const side = Math.ceil(Math.sqrt(most / 4)) + 1;
  const [x, weight] = [tf.ones<tf.Rank.R2>([side, 1]), tf.ones<tf.Rank.R2>([side, 1])];
  const refused = new RegExp(`\\[${side}, ${side}\\].*takes \\d+ MiB, this device binds \\d+ MiB at most`);
  expect(() => linear(x, weight)).toThrow(refused);
  expect(() => tf.tile(x, [1, side])).toThrow(refused);
  // and what fits still works
  expect(Array.from(await linear(tf.tensor2d([[2]]), tf.tensor2d([[3]])).data())).toEqual([6]);
});

it('fails what follows an error that nobody has caught, and starts anew when asked', async () => {
  await useBackend({ prefer: 'webgpu' });
  const x = tf.tensor1d([1, 2]);
  const broken = deviceOf();
  const before = tf.mul(x, 2);
  broken.createShaderModule({ code: 'fn main() { this is no WGSL }' });
  await broken.queue.onSubmittedWorkDone();
  await new Promise((resolve) => setTimeout(resolve, 50));
  await expect(before.data()).rejects.toThrow(BackendError);
  await expect(before.data()).rejects.toThrow(/reported an error, and results since then may be zeros: .*no WGSL/s);
  await useBackend({ prefer: 'webgpu' });
  expect(deviceOf()).not.toBe(broken);
  expect(Array.from(await tf.mul(tf.tensor1d([1, 2]), 2).data())).toEqual([2, 4]);
});

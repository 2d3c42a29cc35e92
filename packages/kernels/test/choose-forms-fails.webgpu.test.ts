import * as tf from '@tensorflow/tfjs-core';
import { expect, it, vi } from 'vitest';
import { linear, useBackend } from '../src/index.js';
import { chooseForms } from '../src/webgpu/choose-forms.js';

vi.mock('../src/webgpu/choose-forms.js', () => ({ chooseForms: vi.fn<typeof chooseForms>() }));

const deviceOf = (): GPUDevice => (tf.backend() as unknown as { device: GPUDevice }).device;
const works = async (): Promise<void> => expect(Array.from(await linear(tf.tensor2d([[2]]), tf.tensor2d([[3]])).data())).toEqual([6]);

it('starts anew, and portably, where trying the forms has cost it the device', async () => {
  let broken: GPUDevice | undefined;
  vi.mocked(chooseForms).mockImplementationOnce(async ({ device }) => {
    broken = device;
    device.destroy();
    await device.lost;
    throw new Error('a form that hangs the device');
  });
  const choice = await useBackend({ prefer: 'webgpu', products: 'measured' });
  expect(choice).toEqual({ name: 'webgpu', why: 'asked for', products: [] });
  expect(broken).toBeDefined();
  expect(deviceOf()).not.toBe(broken);
  await works();
});

it('goes on portably where there is no memory to try them', async () => {
  const before = deviceOf();
  vi.mocked(chooseForms).mockRejectedValueOnce(new Error('the WebGPU device is out of memory'));
  expect((await useBackend({ prefer: 'webgpu', products: 'measured' })).products).toEqual([]);
  expect(deviceOf()).toBe(before);
  await works();
});

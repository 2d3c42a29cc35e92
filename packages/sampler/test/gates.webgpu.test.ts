import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, expect, it } from 'vitest';
import { LayerGates } from '../src/index.js';

beforeAll(async () => {
  await useBackend({ prefer: 'webgpu' });
  // what is invalid gives wrong numbers, and says so only here
  (tf.backend() as unknown as { device: EventTarget }).device.addEventListener('uncapturederror', (event) => {
    throw (event as Event & { error: Error }).error;
  });
});

it('draws on the CPU what the device would, and lists or relaxes groups there too', async () => {
  const gates = new LayerGates([[1, 3], [3, 6]], 9, { mostOptions: 10 });
  const again = createRng(1);
  const draw = await gates.sampleForBatch({ tau: 1, scaling: 100, rng: createRng(1) });
  const gumbel = [3, 6].map((count) => tf.tensor2d(again.gumbel(count), [1, count]));
  const weights = tf.tensor2d(createRng(2).normal(18), [2, 9]);
  const [ours, device] = [() => draw.masks(2), () => gates.sample(2, { tau: 1, scaling: 100, per: 'batch', gumbel }).masks].map((masks) => tf.variableGrads(() => tf.sum(tf.mul(tf.stack(masks(), 1), weights)) as tf.Scalar, gates.gates));
  expect((await ours!.value.data())[0]).toBeCloseTo((await device!.value.data())[0]!, 4);
  for (const { name } of gates.gates) {
    const [a, b] = [await ours!.grads[name]!.data(), await device!.grads[name]!.data()];
    for (const [i, g] of a.entries()) expect(g).toBeCloseTo(b[i]!, 3);
    expect(Math.max(...a.map(Math.abs))).toBeGreaterThan(0.01);
  }
});

it('reads gates that are assigned anew before the read is done', async () => {
  const gates = new LayerGates([[1, 3]], 3);
  const certain = (layer: number): void => tf.tidy(() => gates.gates[0]!.assign(tf.tensor2d([[0, 1, 2].map((j) => (j === layer ? 1 : 0))])));
  const rng = createRng(3);
  certain(2);
  gates.refresh();
  certain(0); // the read of 2 is under way
  expect((await gates.sampleForBatch({ tau: 1, scaling: 100, rng, lag: 1 })).kept).toEqual([2]);
  expect((await gates.sampleForBatch({ tau: 1, scaling: 100, rng })).kept).toEqual([0]);
});

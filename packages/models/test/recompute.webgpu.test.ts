import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { recomputing } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { createModel } from '../src/index.js';

it('gradient checkpointing on webgpu gives the same loss and gradients, and leaves nothing', async () => {
  await useBackend({ prefer: 'webgpu' });
  const rng = createRng(0);
  const model = createModel('DiT-S/2', { init: rng, changes: { hiddenSize: 32, depth: 3, numHeads: 2, numClasses: 10, inputSize: 4 } });
  for (const p of model.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.tensor(rng.normal(p.size).map((v) => 0.1 * v), p.shape))));
  const x = tf.tensor4d(rng.normal(3 * 64), [3, 4, 4, 4]);
  const [t, y] = [tf.tensor1d([1, 200, 900]), tf.tensor1d([0, 4, 10], 'int32')];

  const step = async (recompute: boolean) => {
    const before = tf.memory().numTensors;
    const { value, grads } = tf.variableGrads(() => tf.mean(tf.square(model.forward(x, t, y, recompute ? { hook: recomputing() } : {}))), model.parameters());
    const numbers = new Map<string, Float32Array>();
    for (const [name, gradient] of Object.entries(grads)) numbers.set(name, (await gradient.data()) as Float32Array);
    const loss = (await value.data())[0]!;
    tf.dispose([value, grads]);
    return { loss, numbers, left: tf.memory().numTensors - before };
  };
  const plain = await step(false);
  const less = await step(true);
  expect(less.loss).toBeCloseTo(plain.loss, 5);
  expect([...less.numbers.keys()]).toEqual([...plain.numbers.keys()]);
  for (const [name, expected] of plain.numbers) {
    const scale = expected.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    const error = less.numbers.get(name)!.reduce((most, v, i) => Math.max(most, Math.abs(v - expected[i]!)), 0);
    expect(scale, name).toBeGreaterThan(0);
    expect(error, name).toBeLessThanOrEqual(1e-5 * scale);
  }
  expect([plain.left, less.left]).toEqual([0, 0]);
});

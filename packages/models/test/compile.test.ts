import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { parseSafetensors } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { compile, createModel, loadDiT, saveModel } from '../src/index.js';

it('is the plain path on other backends than webgpu, with weights held as asked', async () => {
  await useBackend({ prefer: 'wasm' });
  const rng = createRng(5);
  const dit = createModel('DiT-S/2', { init: rng, changes: { hiddenSize: 32, depth: 2, numHeads: 2, numClasses: 10, inputSize: 4 } });
  for (const p of dit.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.tensor(rng.normal(p.size).map((v) => 0.1 * v), p.shape))));
  const [x, t] = [tf.tensor4d(rng.normal(64), [1, 4, 4, 4]), tf.tensor1d([300])];
  const expected = await tf.tidy(() => dit.forward(x, t, tf.tensor1d([4], 'int32'))).data();
  const before = tf.memory().numTensors;
  for (const [dtype, least, most] of [[undefined, 0, 1e-7], ['I8', 1e-5, 0.05], ['I4', 1e-4, 0.5]] as const) {
    const compiled = await compile(dit, { batch: 1, dtype });
    expect(compiled.recorded).toBe(false);
    const y = compiled.denoiser([4])(x, t);
    const got = await y.data();
    const error = Math.hypot(...Array.from(got, (v, i) => v - expected[i]!)) / Math.hypot(...expected);
    expect(error).toBeGreaterThanOrEqual(least);
    expect(error).toBeLessThan(most);
    y.dispose();
    compiled.dispose();
    expect(tf.memory().numTensors).toBe(before);
  }
});

it('takes integers for labels, the null class where there is one, and says after dispose that it is gone', async () => {
  await useBackend({ prefer: 'wasm' });
  const make = (classDropoutProb: number) => createModel('DiT-S/2', { init: createRng(0), changes: { hiddenSize: 16, depth: 1, numHeads: 2, numClasses: 3, inputSize: 4, classDropoutProb } });
  const [dit, sure] = [make(0.1), make(0)];
  const compiled = await compile(dit, { batch: 2 });
  for (const labels of [['red', 2], [NaN, 1], [1.5, 2], [-1, 1], [1, 4]]) expect(() => compiled.denoiser(labels as number[])).toThrow('expected integers from 0 to 2, or 3 for no class');
  const [x, t] = [tf.zeros([2, 4, 4, 4]), tf.tensor1d([1, 2])];
  const denoiser = compiled.denoiser([2, 3]);
  tf.dispose(await denoiser(x, t));
  const without = await compile(sure, { batch: 2 });
  expect(() => without.denoiser([2, 3])).toThrow(/labels is 3, expected integers from 0 to 2$/);
  compiled.dispose();
  expect(() => denoiser(x, t)).toThrow('the compiled model has been disposed of; compile the model again');
  expect(() => compiled.denoiser([1, 2])(x, t)).toThrow('has been disposed of');
});

it('holds weights as F32, F16, I8 or I4; other types are refused before anything is made', async () => {
  await useBackend({ prefer: 'wasm' });
  const dit = createModel('DiT-S/2', { init: createRng(0), changes: { hiddenSize: 16, depth: 1, numHeads: 2, numClasses: 3, inputSize: 4 } });
  const state = await parseSafetensors(await saveModel(dit));
  const before = tf.memory().numTensors;
  for (const dtype of ['BF16', 'f16', 'int8'] as unknown as 'F16'[]) {
    await expect(loadDiT(state, { dtype })).rejects.toThrow(/dtype is ".*", expected one of 'F32', 'F16', 'I8', 'I4'/);
    await expect(compile(dit, { batch: 1, dtype })).rejects.toThrow(/expected one of 'F32', 'F16', 'I8', 'I4'/);
  }
  expect(tf.memory().numTensors).toBe(before);
});

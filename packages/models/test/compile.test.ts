import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { compile, createModel } from '../src/index.js';

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

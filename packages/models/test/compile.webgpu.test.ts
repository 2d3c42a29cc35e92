import { BackendError, CancelledError, type ProgressEvent, createRng } from '@tinyfusion/core';
import { type AsyncDenoiser, GaussianDiffusion, classifierFreeGuidance, ddim, dpmSolver, sampleToEnd } from '@tinyfusion/diffusion';
import { resetWebgpuCounters, useBackend, webgpuCounters } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { compile, createModel } from '../src/index.js';

const changes = { hiddenSize: 32, depth: 2, numHeads: 2, numClasses: 10, inputSize: 4 };

describe('a compiled model on webgpu', () => {
  const rng = createRng(5);
  let dit: ReturnType<typeof model>;
  beforeAll(async () => {
    await useBackend({ prefer: 'webgpu' });
    dit = model();
  });

  /** A model whose every weight matters. */
  function model() {
    const made = createModel('DiT-S/2', { init: rng, changes });
    for (const p of made.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.tensor(rng.normal(p.size).map((v) => 0.1 * v), p.shape))));
    return made;
  }

  it('predicts what the plain one does, step after step, whatever x, t and labels, and leaves nothing behind', async () => {
    const events: ProgressEvent[] = [];
    const before = tf.memory();
    const compiled = await compile(dit, { batch: 2, cfg: { scale: 3 }, onProgress: (event) => events.push(event) });
    expect(compiled.recorded).toBe(true);
    expect(events.at(-1)).toMatchObject({ task: 'compile', step: events[0]!.total, total: events[0]!.total });
    expect(events.filter(({ unit }) => unit === 'shader').length).toBeGreaterThan(3);
    for (const [labels, time] of [[[1, 2], 999], [[1, 2], 500.5], [[7, 7], 0]] as const) {
      const y = tf.tensor1d([...labels, 10, 10], 'int32');
      const plain = classifierFreeGuidance((x, t) => dit.forward(x as tf.Tensor4D, t, y), { scale: 3 });
      const x = tf.tensor(rng.normal(2 * 64), [2, 4, 4, 4]);
      const t = tf.tensor1d([time, time / 2]);
      const expected = await plain(x, t).data();
      resetWebgpuCounters();
      const got = compiled.denoiser(labels)(x, t);
      expect(webgpuCounters()).toMatchObject({ dispatches: compiled.dispatches, stockDispatches: 0, submits: 1, bindGroups: 0, pipelines: 0 });
      expect(got.shape).toEqual([2, 4, 4, 8]);
      expect(Array.from(await got.data())).toEqual(Array.from(expected));
    }
    // in a sampler, where x comes from the device, and the solver's step is part of the recording
    const noise = tf.tensor(rng.normal(2 * 64), [2, 4, 4, 4]);
    const y = tf.tensor1d([3, 4, 10, 10], 'int32');
    const guided = classifierFreeGuidance((x, t) => dit.forward(x as tf.Tensor4D, t, y), { scale: 3 });
    for (const sampler of [(denoiser: AsyncDenoiser) => ddim(new GaussianDiffusion({ respacing: '3' }), denoiser, { noise }), (denoiser: AsyncDenoiser) => dpmSolver(new GaussianDiffusion(), denoiser, { noise, steps: 4 })]) {
      const expected = await (await sampleToEnd(sampler(guided))).data();
      const tensors = tf.memory().numTensors;
      resetWebgpuCounters();
      const last = await sampleToEnd(sampler(compiled.denoiser([3, 4])));
      expect(webgpuCounters().stockDispatches).toBe(0);
      const got = await last.data();
      last.dispose();
      expect(tf.memory().numTensors).toBe(tensors);
      // sums in another order
      const error = Math.hypot(...Array.from(got, (v, i) => v - expected[i]!)) / Math.hypot(...expected);
      expect(error).toBeLessThan(1e-5);
    }
    compiled.dispose();
    const again = await compile(dit, { batch: 2, cfg: { scale: 3 } });
    const tensors = tf.memory().numTensors;
    for (let i = 0; i < 3; i++) again.denoiser([1, 2])(noise, tf.tensor1d([5, 5])).dispose();
    expect(tf.memory().numTensors).toBe(tensors + 3); // the three times
    again.dispose();
    again.dispose();
    expect(tf.memory().numTensors).toBeLessThan(before.numTensors + 50);
  });

  it('shares buffers: it holds less than its values together', async () => {
    const compiled = await compile(dit, { batch: 2 });
    // tokens, packed projections and hidden values of two blocks would be more than 2 · 4 tokens · 32 wide · 4 bytes · 11 a block
    expect(compiled.bytes).toBeLessThan(120_000);
    compiled.dispose();
  });

  it('refuses other batches, labels, and weights that have changed; can be cancelled', async () => {
    const own = model();
    const compiled = await compile(own, { batch: 2 });
    expect(() => compiled.denoiser([1])).toThrow('2 of them');
    expect(() => compiled.denoiser([1, 11])).toThrow('integers from 0 to 9, or 10 for no class');
    const denoiser = compiled.denoiser([1, 2]);
    const t = tf.tensor1d([1, 2]);
    expect(() => denoiser(tf.zeros([3, 4, 4, 4]), t)).toThrow('expected [2, 4, 4, 4]');
    tf.tidy(() => own.parameters()[3]!.assign(tf.zeros(own.parameters()[3]!.shape)));
    expect(() => denoiser(tf.zeros([2, 4, 4, 4]), t)).toThrow(BackendError);
    compiled.dispose();
    const controller = new AbortController();
    controller.abort();
    await expect(compile(own, { batch: 3, signal: controller.signal })).rejects.toBeInstanceOf(CancelledError);
    await expect(compile(own, { batch: 0 })).rejects.toThrow('positive integer');
    own.dispose();
  });
});

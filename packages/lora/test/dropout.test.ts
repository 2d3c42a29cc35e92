import { createRng, restoreRng } from '@tinyfusion/core';
import { captureFeatures, composeHooks, recomputing, runBlocks } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { dropout } from '../src/dropout.js';
import { injectLora } from '../src/index.js';
import { Net, apart, input, onBackends, output, randomise, values } from './net.js';

onBackends('dropout', () => {
  it('zeroes a share p of the values, scales the others to keep the mean, and depends on the seed alone', async () => {
    const x = tf.ones([40_000]);
    const y = await values(dropout(x, 0.3, createRng(1)));
    const zeros = y.filter((v) => v === 0).length;
    // four standard deviations of the binomial: 4 · √(40000 · 0.3 · 0.7)
    expect(Math.abs(zeros - 12_000)).toBeLessThan(370);
    expect(new Set(y)).toEqual(new Set([0, Math.fround(1 / (1 - 0.3))]));
    expect(await values(dropout(x, 0.3, createRng(1)))).toEqual(y);
    expect(await values(dropout(x, 0.3, createRng(2)))).not.toEqual(y);
  });

  it('is for training alone, repeats with the stream, and goes on from a saved one', async () => {
    const net = new Net();
    const adapters = injectLora(net, { init: createRng(4), rank: 2, dropout: 0.4 });
    randomise(adapters.parameters(), 5);
    const without = await output(net);
    expect(await output(net)).toEqual(without);
    const rng = createRng(7);
    adapters.train({ rng });
    const first = await output(net);
    const state = rng.state();
    const second = await output(net);
    expect(apart(first, without)).toBeGreaterThan(0.01);
    expect(second).not.toEqual(first);
    adapters.train({ rng: createRng(7) });
    expect(await output(net)).toEqual(first);
    adapters.train({ rng: restoreRng(state) });
    expect(await output(net)).toEqual(second);
    adapters.eval();
    expect(await output(net)).toEqual(without);
  });

  it.each([false, true])('has the mean of a pass without it (DoRA: %s)', async (dora) => {
    const net = new Net(0);
    const adapters = injectLora(net, { init: createRng(4), rank: 2, dropout: 0.25, dora });
    randomise(adapters.parameters(), 5);
    const without = await output(net);
    adapters.train({ rng: createRng(7) });
    const mean = new Float64Array(without.length);
    for (let i = 0; i < 2000; i++) for (const [j, v] of (await output(net)).entries()) mean[j]! += v / 2000;
    // the head is linear in its input; the deviation of a mean of 2000 is some 1 % of the largest output
    expect(apart(mean, without)).toBeLessThan(0.05);
  });

  it('is the same in a block that is computed a second time for its gradient, and moves the stream on once', async () => {
    const net = new Net();
    const adapters = injectLora(net, { init: createRng(4), rank: 2, dropout: 0.4 });
    randomise(adapters.parameters(), 5);
    const x = tf.reshape(input(), [1, 5, 6]) as tf.Tensor3D;
    const gradients = async (recompute: boolean) => {
      const rng = createRng(7);
      adapters.train({ rng });
      const capture = captureFeatures([0]);
      const before = tf.memory().numTensors;
      const { value, grads } = tf.variableGrads(() => {
        const out = runBlocks('blocks', net.blocks, x, (block, h) => block.forward(h) as tf.Tensor3D, { hook: recompute ? composeHooks(capture.hook, recomputing()) : capture.hook });
        const features = [...capture.take().values()];
        const loss = tf.add(tf.sum(tf.square(out)), tf.sum(tf.square(features[0]!))) as tf.Scalar;
        tf.dispose(features);
        return loss;
      }, adapters.parameters().slice(0, 8));
      expect(tf.memory().numTensors).toBe(before + 9);
      const all = await Promise.all([value, ...Object.entries(grads).toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, g]) => g)].map(values));
      tf.dispose([value, grads]);
      return { all, drawn: rng.state() };
    };
    const [plain, again] = [await gradients(false), await gradients(true)];
    expect(again.drawn).toEqual(plain.drawn);
    expect(plain.all[0]).toEqual(again.all[0]);
    for (const [i, g] of plain.all.entries()) expect(apart(again.all[i]!, g)).toBeLessThan(1e-6);
  });

  it('and merged weights exclude each other', () => {
    const adapters = injectLora(new Net(), { init: createRng(4), dropout: 0.4 });
    adapters.train({ rng: createRng(1) });
    expect(() => adapters.merge()).toThrow(/call eval\(\) first/);
    adapters.eval();
    adapters.merge();
    expect(() => adapters.train({ rng: createRng(1) })).toThrow(/call unmerge\(\) first/);
  });
});

import { createRng, restoreRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { dropout } from '../src/dropout.js';
import { injectLora } from '../src/index.js';
import { Net, apart, onBackends, output, randomise, values } from './net.js';

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

  it('and merged weights exclude each other', () => {
    const adapters = injectLora(new Net(), { init: createRng(4), dropout: 0.4 });
    adapters.train({ rng: createRng(1) });
    expect(() => adapters.merge()).toThrow(/call eval\(\) first/);
    adapters.eval();
    adapters.merge();
    expect(() => adapters.train({ rng: createRng(1) })).toThrow(/call unmerge\(\) first/);
  });
});

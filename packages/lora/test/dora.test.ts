import { createRng } from '@tinyfusion/core';
import { readState } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { type LoraLinear, injectLora } from '../src/index.js';
import { Net, apart, input, onBackends, output, randomise, values } from './net.js';

onBackends('DoRA', () => {
  it('computes at first what the model did, and trains A, B and magnitudes', async () => {
    const net = new Net();
    const before = await output(net);
    const adapters = injectLora(net, { init: createRng(4), rank: 2, dora: true });
    expect(apart(await output(net), before)).toBeLessThan(1e-6);
    expect(adapters.parameterCount()).toBe(2 * (4 * (6 + 10) + (6 + 4)) + 2 * (10 + 6) + 4);
    expect(net.parameters()).toEqual(adapters.parameters());
    randomise(adapters.parameters(), 5);
    const x = input();
    const { grads } = tf.variableGrads(() => tf.sum(tf.square(net.forward(x))), net.parameters());
    for (const p of adapters.parameters()) expect(Math.max(...(await values(grads[p.name]!)).map(Math.abs)), p.name).toBeGreaterThan(1e-3);
  });

  it("merged rows have the magnitudes' lengths, and the directions of W + s·BA", async () => {
    const net = new Net();
    const weight = (await readState(net)).get('head.weight')!.values;
    const adapters = injectLora(net, { init: createRng(4), rank: 2, alpha: 3, dora: true, targets: ['head'] });
    randomise(adapters.parameters(), 6);
    const { lora_A: a, lora_B: b, lora_magnitude_vector: m } = (net.head as LoraLinear).adapters.get('default')!;
    const direction = await values(tf.add(tf.tensor(weight, [4, 6]), tf.mul(tf.matMul(b as never, a as never), 1.5)));
    adapters.merge();
    const merged = (await readState(net)).get('head.weight')!.values;
    const lengths = await values(m!);
    for (let row = 0; row < 4; row++) {
      const [w, v] = [merged.subarray(6 * row, 6 * row + 6), direction.subarray(6 * row, 6 * row + 6)];
      expect(Math.hypot(...w)).toBeCloseTo(lengths[row]!, 5);
      expect(apart(w.map((c) => c / Math.hypot(...w)), v.map((c) => c / Math.hypot(...v)))).toBeLessThan(1e-6);
    }
  });

  it('outputs whose weights are zero stay zero, and nothing is NaN', async () => {
    const net = new Net();
    tf.tidy(() => net.head.weight.assign(tf.zeros([4, 6])));
    const before = await output(net);
    const adapters = injectLora(net, { init: createRng(4), dora: true, targets: ['head'] });
    expect(await output(net)).toEqual(before);
    const x = input();
    const { grads } = tf.variableGrads(() => tf.sum(net.forward(x)), adapters.parameters());
    for (const g of Object.values(grads)) for (const value of await values(g)) expect(value).not.toBeNaN();
  });
});

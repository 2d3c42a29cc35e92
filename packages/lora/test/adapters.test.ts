import { createRng } from '@tinyfusion/core';
import { readState } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { type LoraAdapters, injectLora } from '../src/index.js';
import { Net, apart, input, onBackends, output, randomise } from './net.js';

/** LoRA 'a' on every layer, DoRA 'b' on some. */
function two(net: Net): LoraAdapters {
  const adapters = injectLora(net, { name: 'a', init: createRng(1), rank: 2 });
  adapters.add('b', { init: createRng(2), rank: 3, dora: true, targets: ['qkv', 'head'] });
  randomise(adapters.parameters('a'), 3);
  randomise(adapters.parameters('b'), 4);
  return adapters;
}

onBackends('several adapters', () => {
  it('the first is active, others when they are chosen, and each alone is what it is without the other', async () => {
    const net = new Net();
    const plain = await output(net);
    const adapters = two(net);
    const alone = new Net();
    randomise(injectLora(alone, { init: createRng(1), rank: 2 }).parameters(), 3);
    expect(await output(net)).toEqual(await output(alone));
    expect(net.parameters()).toEqual(adapters.parameters('a'));
    adapters.setActive(['b']);
    const other = new Net();
    randomise(injectLora(other, { init: createRng(2), rank: 3, dora: true, targets: ['qkv', 'head'] }).parameters(), 4);
    expect(await output(net)).toEqual(await output(other));
    expect(net.parameters()).toEqual(adapters.parameters('b'));
    adapters.setActive([]);
    expect(await output(net)).toEqual(plain);
    expect(net.parameters()).toEqual([]);
  });

  it('sums are weighted, of every layer by itself, and the same merged', async () => {
    const net = new Net();
    const weight = (await readState(net)).get('head.weight')!.values;
    const adapters = two(net);
    const merged = async (names: string[], weights?: number[]) => {
      adapters.setActive(names, weights);
      adapters.merge();
      const own = (await readState(net)).get('head.weight')!.values;
      adapters.unmerge();
      return own;
    };
    const [a, b] = [await merged(['a']), await merged(['b'])];
    const sum = await merged(['a', 'b'], [0.5, -2]);
    expect(apart(sum, weight.map((w, i) => w + 0.5 * (a[i]! - w) - 2 * (b[i]! - w)))).toBeLessThan(1e-6);
    const unmerged = await output(net);
    adapters.merge();
    expect(apart(await output(net), unmerged)).toBeLessThan(1e-6);
    // the other order is the same sum
    adapters.setActive(['b', 'a'], [-2, 0.5]);
    expect(apart(await output(net), unmerged)).toBeLessThan(1e-6);
  });

  it('are swapped between the steps of a loop, merged or not, without a trace', async () => {
    const net = new Net();
    const adapters = two(net);
    const schedule: [string[], number[]][] = [[['a'], [1]], [['a', 'b'], [0.3, 0.7]], [['b'], [1]], [[], []], [['a'], [1]]];
    const run = async () => {
      const steps: Float32Array[] = [];
      for (const [names, weights] of schedule) {
        adapters.setActive(names, weights);
        steps.push(await output(net));
      }
      return steps;
    };
    const unmerged = await run();
    const tensors = tf.memory().numTensors;
    adapters.merge();
    const merged = await run();
    for (const [i, step] of merged.entries()) expect(apart(step, unmerged[i]!), `step ${i}`).toBeLessThan(1e-6);
    expect(adapters.merged).toBe(true);
    adapters.unmerge();
    expect(tf.memory().numTensors).toBe(tensors);
    expect(await run()).toEqual(unmerged);
  });

  it('one is taken away while merged, and the layers it was alone on are plain again', async () => {
    const net = new Net();
    const adapters = injectLora(net, { name: 'a', init: createRng(1), targets: ['head'] });
    adapters.add('b', { init: createRng(2), targets: ['qkv'] });
    randomise(adapters.parameters('a'), 3);
    const onlyA = await output(net);
    randomise(adapters.parameters('b'), 4);
    adapters.setActive(['a', 'b']);
    adapters.merge();
    adapters.delete('b');
    expect(apart(await output(net), onlyA)).toBeLessThan(1e-6);
    expect(adapters.paths).toEqual(['head']);
    expect(adapters.names).toEqual(['a']);
    adapters.remove();
    expect(net.parameters().length).toBe(8);
  });
});

describe('names of adapters', () => {
  it('must be there, once, with a weight each', () => {
    const adapters = two(new Net());
    expect(() => adapters.setActive(['c'])).toThrow(/setActive: name is "c", expected one of the adapters: a, b/);
    expect(() => adapters.setActive(['a', 'a'])).toThrow(/each adapter once/);
    expect(() => adapters.setActive(['a'], [1, 2])).toThrow(/1 finite numbers/);
    expect(() => adapters.setActive(['a'], [Number.NaN])).toThrow(/1 finite numbers/);
    expect(() => adapters.add('a', { init: 'zeros' })).toThrow(/a new name beside a, b/);
    expect(() => [...adapters.state()]).toThrow(/state: name is missing, expected one of the adapters: a, b/);
    expect([...adapters.active]).toEqual([['a', 1]]);
    expect(adapters.pathsOf('b')).toEqual(['blocks.0.attn.qkv', 'blocks.1.attn.qkv', 'head']);
  });

  it('keep gradients to the active ones', () => {
    const net = new Net();
    const adapters = two(net);
    const x = input();
    adapters.setActive(['b'], [0.5]);
    const { grads } = tf.variableGrads(() => tf.sum(tf.square(net.forward(x))));
    for (const p of adapters.parameters('a')) expect(grads[p.name]).toBeUndefined();
    for (const p of adapters.parameters('b')) expect(grads[p.name]).toBeDefined();
  });
});

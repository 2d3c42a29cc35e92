import { useBackend } from '@tinyfusion/kernels';
import { createRng } from '@tinyfusion/core';
import { DiT } from '@tinyfusion/models';
import { type HookOptions, runBlocks } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { expectedCost, measureBlocks, relativeCosts } from '../src/index.js';

/** A model whose parts take known times on a clock of its own. */
function timed(costs: readonly { attention: number; mlp: number; own: number }[], rest: number, jitter: () => number = () => 0): { run: (hooks: HookOptions) => tf.Tensor; now: () => number } {
  let clock = 0;
  return {
    now: () => clock,
    run: (hooks) =>
      tf.tidy(() => {
        clock += rest + jitter();
        return runBlocks('blocks', costs, tf.ones([1, 1, 1]), (block, x, around) => {
          clock += block.own;
          const y = around('attention', x, (h) => ((clock += block.attention), tf.add(h, 1) as tf.Tensor3D));
          return around('mlp', y, (h) => ((clock += block.mlp), tf.add(h, 1) as tf.Tensor3D));
        }, hooks);
      }),
  };
}

describe('block costs', () => {
  const costs = [{ attention: 3, mlp: 5, own: 1 }, { attention: 2, mlp: 2, own: 0 }, { attention: 0, mlp: 8, own: 1 }];

  it('are those of each block and branch', async () => {
    const before = tf.memory().numTensors;
    const events: number[] = [];
    const table = await measureBlocks(3, timed(costs, 10).run, { ...timed(costs, 10), branches: true, now: (() => 0) as () => number, repeats: 1 }).catch((error: unknown) => error);
    expect(table).toMatchObject({ blocks: [0, 0, 0] }); // a clock that stands still
    const model = timed(costs, 10);
    expect(await measureBlocks(3, model.run, { branches: true, now: model.now, onProgress: ({ step }) => events.push(step) })).toEqual({ unit: 'ms', blocks: [9, 4, 9], attention: [3, 2, 0], mlp: [5, 2, 8], rest: 10 });
    expect(events).toEqual([1, 2, 3, 4, 5, 6]);
    const plain = timed(costs, 10);
    expect(await measureBlocks(3, plain.run, { now: plain.now })).toEqual({ unit: 'ms', blocks: [9, 4, 9], rest: 10 });
    expect(tf.memory().numTensors).toBe(before);
  });

  it('are medians: rare delays do not count, nor does the first round', async () => {
    let calls = 0;
    const model = timed(costs, 10, () => (calls++ < 4 ? 1000 : calls % 13 === 0 ? 500 : 0));
    expect((await measureBlocks(3, model.run, { now: model.now, repeats: 9 })).blocks).toEqual([9, 4, 9]);
  });

  it('are comparable, and add up to a model', () => {
    const table = { unit: 'ms' as const, blocks: [9, 3, 6], attention: [3, 0, 6], rest: 12 };
    expect(relativeCosts(table)).toEqual({ unit: 'relative', blocks: [1.5, 0.5, 1], attention: [0.5, 0, 1], rest: 2 });
    expect([expectedCost(table, [0, 1, 2]), expectedCost(table, [2])]).toEqual([30, 18]);
    expect(() => expectedCost(table, [3])).toThrow(/indices from 0 to 2/);
    expect(() => relativeCosts({ ...table, blocks: [0] })).toThrow(/mean block is 0/);
  });

  it('refuse what does not fit', async () => {
    const model = timed(costs, 1);
    const before = tf.memory().numTensors;
    await expect(measureBlocks(4, model.run)).rejects.toThrow(/depth is 4, expected the model's 3/);
    await expect(measureBlocks(3, model.run, { repeats: 0 })).rejects.toThrow(/repeats is 0/);
    await expect(measureBlocks(3, () => tf.ones([1]))).rejects.toThrow(/a pass that called no hook/);
    await expect(measureBlocks(3, ({ hook }) => model.run({ hook }), { branches: true })).rejects.toThrow(/branchHook/);
    await expect(measureBlocks(3, model.run, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(tf.memory().numTensors).toBe(before);
  });

  it('of a real model predict what masks cost', async () => {
    await useBackend({ prefer: 'wasm' });
    const rng = createRng(1);
    const model = new DiT({ inputSize: 16, patchSize: 2, inChannels: 4, hiddenSize: 128, depth: 3, numHeads: 4, mlpRatio: 4, classDropoutProb: 0, numClasses: 3, learnSigma: false }, { init: rng });
    const [x, t, y] = [tf.ones([8, 16, 16, 4]) as tf.Tensor4D, tf.fill([8], 5) as tf.Tensor1D, tf.zeros([8], 'int32') as tf.Tensor1D];
    const before = tf.memory().numTensors;
    const table = await measureBlocks(3, (hooks) => model.forward(x, t, y, hooks), { branches: true, repeats: 5 });
    expect(tf.memory().numTensors).toBe(before);
    expect(Math.min(...table.blocks, ...table.attention!, ...table.mlp!)).toBeGreaterThan(0);
    // blocks are alike; the machine is shared, so that only the order of size can be asserted
    expect(Math.max(...table.blocks) / Math.min(...table.blocks)).toBeLessThan(4);
    for (let i = 0; i < 3; i++) expect((table.attention![i]! + table.mlp![i]!) / table.blocks[i]!).toBeGreaterThan(0.3);
    tf.dispose([x, t, y]);
    model.dispose();
  });
});

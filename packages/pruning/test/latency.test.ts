import { useBackend } from '@tinyfusion/kernels';
import { createRng } from '@tinyfusion/core';
import { DiT } from '@tinyfusion/models';
import { type HookOptions, runBlocks } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { blockKinds, branchMaskHook, maskHook, measureBlocks, measureSpeed, passCost, relativeCosts } from '../src/index.js';

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
    expect(await measureBlocks(3, model.run, { branches: true, now: model.now, onProgress: ({ step }) => events.push(step) })).toEqual({ unit: 'ms', blocks: [9, 4, 9], attention: [3, 2, 0], mlp: [5, 2, 8], rest: 10, spread: [0, 0, 0] });
    expect(events).toEqual([1, 2, 3, 4, 5, 6]);
    const plain = timed(costs, 10);
    expect(await measureBlocks(3, plain.run, { now: plain.now })).toEqual({ unit: 'ms', blocks: [9, 4, 9], rest: 10, spread: [0, 0, 0] });
    expect(tf.memory().numTensors).toBe(before);
  });

  it('are lower quartiles: rare delays do not count, nor does the first round', async () => {
    let calls = 0;
    const model = timed(costs, 10, () => (calls++ < 4 ? 1000 : calls % 13 === 0 ? 500 : 0));
    expect((await measureBlocks(3, model.run, { now: model.now, repeats: 9 })).blocks).toEqual([9, 4, 9]);
  });

  it('are the same for blocks that do the same, whatever the clock says', async () => {
    const alike = Array.from({ length: 12 }, (_, i) => (i === 5 ? { attention: 1, mlp: 1, own: 1 } : { attention: 3, mlp: 5, own: 1 }));
    const kinds = alike.map(({ mlp }) => `mlp of ${mlp}`);
    // a machine that others share: every part of a pass takes up to twice as long
    const rng = createRng(3);
    const noisy = { now: (): number => clock, run: timed(alike, 10).run };
    let clock = 0;
    const model = timed(alike, 10, () => 0);
    noisy.run = (hooks) => {
      const start = model.now();
      const y = model.run(hooks);
      clock += (model.now() - start) * (1 + rng.uniform(1)[0]! ** 3);
      return y;
    };
    const table = await measureBlocks(12, noisy.run, { branches: true, kinds, now: noisy.now, repeats: 15 });
    const others = (values: readonly number[]): number[] => values.filter((_, i) => i !== 5);
    for (const values of [table.blocks, table.attention!, table.mlp!]) expect(new Set(others(values)).size).toBe(1);
    for (const [values, right] of [[table.blocks, 9], [table.attention!, 3], [table.mlp!, 5]] as const) expect(Math.abs(values[0]! / right - 1)).toBeLessThan(0.1);
    expect(Math.abs(table.blocks[5]! / 3 - 1)).toBeLessThan(0.3);
    expect(table.spread![0]).toBeGreaterThan(0.1);
    // each by itself: the clock alone makes the dearest dearer than the cheapest
    const apart = await measureBlocks(12, noisy.run, { branches: true, now: noisy.now, repeats: 5 });
    expect(Math.max(...others(apart.attention!)) / Math.min(...others(apart.attention!))).toBeGreaterThan(1.1);
    await expect(measureBlocks(12, noisy.run, { kinds: ['a'] })).rejects.toThrow(/kinds is 1, expected 12 labels/);
  });

  it('are proved by running whole and masked model in turns', async () => {
    const model = timed(costs, 10);
    const masked = { hook: maskHook([0, 2], 3), branchHook: branchMaskHook({ mlp: [2] }) };
    const table = await measureBlocks(3, model.run, { branches: true, now: model.now });
    const kept = passCost(table, [0, 2], { mlp: [2] });
    expect(kept).toBe(20);
    let rounds = 0;
    // a machine that becomes slower for a while, and holds up half of the passes
    let clock = 0;
    const rng = createRng(5);
    const tired = (hooks: HookOptions): tf.Tensor => {
      const start = model.now();
      const y = model.run(hooks);
      clock += (model.now() - start) * (1 + 0.02 * Math.sin(rounds++ / 9)) + Math.max(0, 40 * rng.normal(1)[0]!);
      return y;
    };
    const before = tf.memory().numTensors;
    const totals: (number | undefined)[] = [];
    const speed = await measureSpeed(tired, masked, { now: () => clock, forMs: 5000, onProgress: ({ total }) => totals.push(total) });
    expect(tf.memory().numTensors).toBe(before);
    expect(totals.length).toBe(totals.at(-1));
    expect(totals.length).toBeGreaterThan(30); // a round takes some 80 ms
    expect(Math.abs(speed.faster / (32 / 20) - 1)).toBeLessThan(0.04);
    expect(speed.quartiles[0]).toBeLessThanOrEqual(speed.quartiles[1]);
    expect(speed.quartiles.every((q) => Math.abs(q / speed.faster - 1) < 0.05)).toBe(true);
    await expect(measureSpeed(model.run, masked, { repeats: 0 })).rejects.toThrow(/repeats is 0/);
    await expect(measureSpeed(model.run, masked, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  it('are comparable, and add up to a model', () => {
    const table = { unit: 'ms' as const, blocks: [9, 3, 6], attention: [3, 0, 6], rest: 12 };
    expect(relativeCosts({ ...table, spread: [3, 6, 0] })).toEqual({ unit: 'relative', blocks: [1.5, 0.5, 1], attention: [0.5, 0, 1], rest: 2, spread: [0.5, 1, 0] });
    expect([passCost(table, [0, 1, 2]), passCost(table, [2]), passCost(table, [0, 2], { attention: [0] })]).toEqual([30, 18, 24]);
    expect(() => passCost(table, [0], { mlp: [0] })).toThrow(/without branches/);
    expect(() => passCost(table, [3])).toThrow(/indices from 0 to 2/);
    expect(() => relativeCosts({ ...table, blocks: [0] })).toThrow(/mean block is 0/);
  });

  it('refuse what does not fit', async () => {
    const model = timed(costs, 1);
    const before = tf.memory().numTensors;
    await expect(measureBlocks(4, model.run)).rejects.toThrow(/depth is 4, expected the model's 3/);
    await expect(measureBlocks(3, model.run, { repeats: 0 })).rejects.toThrow(/repeats is 0/);
    await expect(measureBlocks(3, () => tf.ones([1]))).rejects.toThrow(/a pass that called no hook/);
    await expect(measureBlocks(3, ({ hook }) => model.run({ hook }), { branches: true })).rejects.toThrow(/no hook around the attention of block 0.*branchHook/);
    await expect(measureBlocks(3, model.run, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(tf.memory().numTensors).toBe(before);
  });

  it('of a real model predict what masks cost', async () => {
    await useBackend({ prefer: 'wasm' });
    const rng = createRng(1);
    const model = new DiT({ inputSize: 16, patchSize: 2, inChannels: 4, hiddenSize: 128, depth: 3, numHeads: 4, mlpRatio: 4, classDropoutProb: 0, numClasses: 3, learnSigma: false }, { init: rng });
    const [x, t, y] = [tf.ones([8, 16, 16, 4]) as tf.Tensor4D, tf.fill([8], 5) as tf.Tensor1D, tf.zeros([8], 'int32') as tf.Tensor1D];
    const before = tf.memory().numTensors;
    const kinds = blockKinds(model.blocks);
    expect(new Set(kinds).size).toBe(1);
    expect(kinds[0]).toMatch(/^DiTBlock, attn\.qkv\.weight 384×128, /);
    const once = await measureBlocks(3, (hooks) => model.forward(x, t, y, hooks), { branches: true, kinds, repeats: 1 });
    expect(new Set(once.mlp).size).toBe(1);
    const table = await measureBlocks(3, (hooks) => model.forward(x, t, y, hooks), { branches: true, repeats: 3 });
    expect(tf.memory().numTensors).toBe(before);
    expect(Math.min(...table.blocks, ...table.attention!, ...table.mlp!)).toBeGreaterThan(0);
    // blocks are alike; the machine is shared, so that only the order of size can be asserted
    expect(Math.max(...table.blocks) / Math.min(...table.blocks)).toBeLessThan(4);
    for (let i = 0; i < 3; i++) expect((table.attention![i]! + table.mlp![i]!) / table.blocks[i]!).toBeGreaterThan(0.3);
    tf.dispose([x, t, y]);
    model.dispose();
  });
});

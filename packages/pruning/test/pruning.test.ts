import { CheckpointError, createRng } from '@tinyfusion/core';
import { runBlocks } from '@tinyfusion/nn';
import { stateDictOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { BlockError, BlockInfluence, type PruneRecord, atRandom, byIndex, firstLayers, firstOfEach, lastLayers, leastRedundant, maskHook, oracle, pruneMetadata, pruneState, readPruneRecord, sensitivities, stackDepth, uniformLayers } from '../src/index.js';

describe('choices', () => {
  it('are ascending, of the asked-for number, and checked', () => {
    expect(byIndex(6, [5, 0, 3])).toEqual([0, 3, 5]);
    expect(oracle(28, 14)).toEqual([0, 2, 4, 6, 8, 10, 12, 15, 17, 19, 21, 23, 25, 27]); // VainF/TinyFusion, with its 14 corrected to 15
    expect([oracle(12, 6), oracle(6, 3), oracle(28, 7), oracle(3, 1)]).toEqual([[0, 2, 4, 7, 9, 11], [0, 2, 5], [0, 4, 8, 12, 19, 23, 27], [0]]);
    expect(firstOfEach(12, 6)).toEqual([0, 2, 4, 6, 8, 10]);
    expect(oracle(28, 19).length).toBe(19);
    expect(atRandom(28, 14, createRng(1)).length).toBe(14);
    expect(atRandom(28, 14, createRng(1))).toEqual(atRandom(28, 14, createRng(1)));
    // the most similar go, the last stays
    expect(leastRedundant([0.1, 0.9, 0.5, 0.99], 2)).toEqual([0, 3]);
    expect(leastRedundant([0.1, 0.9, 0.5, 0.99], 2, { keepLast: false })).toEqual([0, 2]);
    expect([firstLayers(6, 2), lastLayers(6, 2), uniformLayers(6, 3), uniformLayers(28, 14).length, new Set(uniformLayers(28, 19)).size]).toEqual([[0, 1], [4, 5], [0, 3, 5], 14, 19]);
    expect(() => byIndex(6, [6])).toThrow(/indices from 0 to 5/);
    expect(() => byIndex(6, [1, 1])).toThrow(/each layer once/);
    expect(() => byIndex(6, [])).toThrow(/at least one/);
    expect(() => oracle(6, 7)).toThrow(/from 1 to the model's 6/);
    expect(() => leastRedundant([NaN, 1, 5, 2], 2)).toThrow(/score of layer 0 is NaN, expected a number/);
  });
});

describe('surgery', () => {
  const tensor = (v: number) => ({ shape: [1], values: Float32Array.of(v) });
  const state = stateDictOf([['x', tensor(9)], ...[0, 1, 2, 3].flatMap((i) => [[`blocks.${i}.fc.weight`, tensor(i)] as const, [`blocks.${i}.norm`, tensor(10 + i)] as const])]);

  it('renumbers what is kept and leaves the rest', async () => {
    const pruned = pruneState(state, 'blocks', [1, 3]);
    expect([...pruned.tensors.keys()].toSorted()).toEqual(['blocks.0.fc.weight', 'blocks.0.norm', 'blocks.1.fc.weight', 'blocks.1.norm', 'x']);
    expect(new Float32Array((await pruned.tensors.get('blocks.1.fc.weight')!.read()).slice().buffer)[0]).toBe(3);
    expect(stackDepth(pruned, 'blocks')).toBe(2);
  });

  it('says which stacks there are where the named one is not, and where one has a hole', () => {
    expect(() => pruneState(state, 'layers', [0])).toThrow(/no blocks called layers\.0, layers\.1, …; it has: blocks/);
    expect(() => stackDepth(stateDictOf([['blocks.0.w', tensor(0)], ['blocks.2.w', tensor(0)]]), 'blocks')).toThrow(/none numbered 1/);
  });

  it('without surgery: a hook that skips', () => {
    const y = runBlocks('blocks', [2, 3, 5], tf.ones([1, 1, 1]), (f, h) => tf.mul(h, f) as tf.Tensor3D, { hook: maskHook([0, 2]) });
    expect(y.dataSync()[0]).toBe(10);
  });
});

describe('the prune record', () => {
  const record: PruneRecord = { version: 1, stack: 'blocks', kept: [0, 3], depth: 4, criterion: 'learned', teacher: { name: 't', sha256: 'a'.repeat(64) } };

  it('comes back from metadata', () => {
    expect(readPruneRecord(new Map([pruneMetadata({ ...record, from: record })]))).toEqual({ ...record, from: record });
    expect(readPruneRecord(new Map())).toBeUndefined();
  });

  it.each([[{ kept: [3, 0] }, 'ascending'], [{ kept: [4] }, 'ascending'], [{ depth: 0 }, 'depth'], [{ version: 2 }, 'newer'], [{ teacher: { name: 't', sha256: 'x' } }, 'SHA-256'], [{ from: {} }, 'version']])('is refused with %j', (change, message) => {
    expect(() => readPruneRecord(new Map([['tinyfusion.prune', JSON.stringify({ ...record, ...change })]]))).toThrow(message);
    expect(() => readPruneRecord(new Map([['tinyfusion.prune', '{']]))).toThrow(CheckpointError);
  });
});

describe('block influence', () => {
  it('is the mean cosine between what goes in and what comes out', async () => {
    const influence = new BlockInfluence();
    const x = tf.tensor3d([[[1, 0]]]);
    const turn = (angle: number) => tf.tensor2d([[Math.cos(angle), Math.sin(angle)], [-Math.sin(angle), Math.cos(angle)]]);
    const before = tf.memory().numTensors;
    for (const extra of [0, 0.2]) {
      tf.tidy(() => void runBlocks('blocks', [0.3, 1], x, (angle, h) => tf.reshape(tf.matMul(tf.reshape(h, [1, 2]), turn(angle + extra)), [1, 1, 2]) as tf.Tensor3D, { hook: influence.hook }));
      influence.endBatch();
    }
    const [first, second] = await influence.similarities();
    expect(first).toBeCloseTo((Math.cos(0.3) + Math.cos(0.5)) / 2, 5);
    expect(second).toBeCloseTo((Math.cos(1) + Math.cos(1.2)) / 2, 5);
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe('block error and sensitivity', () => {
  const blocks = [1.5, 1, -1, 3];
  const x = tf.ones([2, 1, 1]) as tf.Tensor3D;
  const run = (hook: Parameters<typeof runBlocks>[4]) => runBlocks('blocks', blocks, x, (factor, h) => tf.mul(h, factor) as tf.Tensor3D, hook);

  it('measure how far a block moves its input', async () => {
    const before = tf.memory().numTensors;
    const error = new BlockError();
    for (let i = 0; i < 2; i++) {
      tf.tidy(() => void run({ hook: error.hook }));
      error.endBatch();
    }
    // inputs 1, 1.5, 1.5, −1.5
    expect(await error.errors()).toEqual([0.25, 0, 9, 9]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('refuse what is not finite, and a measurement without a batch', async () => {
    const error = new BlockError();
    tf.tidy(() => void runBlocks('blocks', [1, NaN, 1], x, (factor, h) => tf.mul(h, factor) as tf.Tensor3D, { hook: error.hook }));
    await expect(error.errors()).rejects.toThrow(/BlockError: batches is 0, expected at least one; call endBatch/);
    error.endBatch();
    await expect(error.errors()).rejects.toThrow(/BlockError: measure of block 1 is NaN, expected a finite number/);
  });

  it('are for a model of as many blocks as were said', async () => {
    await expect(sensitivities(8, async (hook) => run({ hook }).dataSync()[0]!)).rejects.toThrow(/blocks of the model is 4, expected 8/);
    expect(() => run({ hook: maskHook([0, 9]) })).toThrow(/blocks of the model is 4, expected more than 9/);
  });

  it('measure the loss without each block, and choose by it', async () => {
    const seen: string[] = [];
    const losses = await sensitivities(4, async (hook) => Math.abs(run({ hook }).dataSync()[0]! - 4.5), { onProgress: ({ step, total }) => seen.push(`${step}/${total}`) });
    expect(losses).toEqual([7.5, 9, 0, 6]);
    expect(seen).toEqual(['1/4', '2/4', '3/4', '4/4']);
    expect(leastRedundant(losses.map((l) => -l), 2)).toEqual([1, 3]);
    await expect(sensitivities(4, async () => Number.NaN)).rejects.toThrow(/loss without block 0 is NaN/);
    await expect(sensitivities(4, async () => 1, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});

import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { DiT, type DiTBlock, MAR, TokenMask } from '@tinyfusion/models';
import { hooksByStack, randomNormal } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { type HookedModel, type ResidualStack, allMasks, branchMaskHook, calibrationLoss, maskCount, maskHook, maskLosses, randomMasks, stratified, summariseMasks } from '../src/index.js';

/** Blocks that do not commute: h ← h · f + i. */
function tower(factors: readonly number[]): ResidualStack & { calls: number[]; loss(kept: readonly number[]): number } {
  const calls: number[] = [];
  return {
    depth: factors.length,
    calls,
    start: () => tf.tensor1d([1]),
    block: (i, x) => {
      calls.push(i);
      return tf.add(tf.mul(x, factors[i]!), i);
    },
    finish: async (x) => (await x.data())[0]!,
    loss: (kept) => kept.reduce((h, i) => Math.fround(Math.fround(h * factors[i]!) + i), 1),
  };
}

describe('masks', () => {
  it('are all of them, in order', () => {
    expect(allMasks(4, 2)).toEqual([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
    expect([allMasks(12, 6).length, maskCount(28, 14), allMasks(5, 5)]).toEqual([924, 40_116_600, [[0, 1, 2, 3, 4]]]);
    expect(() => allMasks(28, 14)).toThrow(/at most 2000000 to list; draw some/);
    expect(() => allMasks(4, 5)).toThrow(/from 1 to the model's 4/);
  });

  it('are drawn without repeats, the same for a seed', () => {
    const masks = randomMasks(28, 14, 500, createRng(1));
    expect(new Set(masks.map(String)).size).toBe(500);
    expect(masks).toEqual(randomMasks(28, 14, 500, createRng(1)));
    expect(masks).not.toEqual(randomMasks(28, 14, 500, createRng(2)));
    expect(new Set(randomMasks(4, 2, 6, createRng(1)).map(String)).size).toBe(6);
    expect(() => randomMasks(4, 2, 7, createRng(1))).toThrow(/from 1 to the 6 there are/);
    // each block is in half of the masks
    const counts = Array.from({ length: 8 }, (_, i) => randomMasks(8, 4, 30, createRng(3)).filter((m) => m.includes(i)).length);
    expect(Math.min(...counts)).toBeGreaterThan(5);
  });

  it('are summarised, and spread over the losses', () => {
    const masks = Array.from({ length: 100 }, (_, i) => ({ kept: [i], loss: (i * 37) % 100 }));
    const { min, median, max, mean, deviation, count } = summariseMasks(masks);
    expect([count, min.loss, median.loss, max.loss, mean]).toEqual([100, 0, 49, 99, 49.5]);
    expect(deviation).toBeCloseTo(Math.sqrt((100 ** 2 - 1) / 12), 8);
    const chosen = stratified(masks, 10, createRng(4));
    expect(chosen.map(({ loss }) => Math.floor(loss / 10))).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(stratified(masks, 10, createRng(4))).toEqual(chosen);
    expect(stratified(masks, 10, createRng(5))).not.toEqual(chosen);
    expect(stratified(masks, 100, createRng(4)).length).toBe(100);
    expect(() => stratified(masks, 101, createRng(4))).toThrow(/from 1 to the 100 masks/);
  });
});

describe('a study of masks on a stack', () => {
  const factors = [0.5, -1.5, 2, 0.75, -1, 1.25];

  it('has the loss of each mask, in their order, whatever the masks are', async () => {
    const before = tf.memory().numTensors;
    const rng = createRng(2);
    const masks = [...allMasks(6, 3), [0], [0, 1], [5], [0, 1, 2, 3, 4, 5], [4, 2], [2, 4]];
    const shuffled = Array.from(rng.permutation(masks.length), (i) => masks[i]!);
    const stack = tower(factors);
    const losses = await maskLosses(shuffled, stack);
    const sorted = shuffled.map((mask) => mask.toSorted((a, b) => a - b));
    expect(losses).toEqual(sorted.map((kept) => ({ kept, loss: stack.loss(kept) })));
    expect(JSON.parse(JSON.stringify(losses))).toEqual(losses);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('computes what masks share once', async () => {
    const stack = tower(Array.from({ length: 12 }, (_, i) => 1 - i / 20));
    await maskLosses(allMasks(12, 6), stack);
    expect(stack.calls.length).toBe(1715); // distinct beginnings of kept blocks; 924 · 6 = 5544 without
    expect(stack.calls.length).toBe(new Set(allMasks(12, 6).flatMap((mask) => mask.map((_, i) => mask.slice(0, i + 1).join()))).size);
  });

  it('takes the mean over several batches', async () => {
    const [a, b] = [tower(factors), tower(factors.map((f) => f / 2))];
    const losses = await maskLosses([[1, 3], [0, 2]], [a, b]);
    for (const { kept, loss } of losses) expect(loss).toBeCloseTo((a.loss(kept) + b.loss(kept)) / 2, 10);
    await expect(maskLosses([[0]], [a, tower([1])])).rejects.toThrow(/depth of a stack is 1, expected 6/);
    await expect(maskLosses([[0]], [])).rejects.toThrow(/at least one/);
  });

  it('reports, is cancelled, refuses, and frees everything', async () => {
    const before = tf.memory().numTensors;
    const events: number[] = [];
    await maskLosses(allMasks(6, 3), tower(factors), { onProgress: ({ step, total }) => events.push(step / total!) });
    expect([events.length, events.at(-1)]).toEqual([20, 1]);
    const controller = new AbortController();
    await expect(maskLosses(allMasks(6, 3), tower(factors), { signal: controller.signal, onProgress: ({ step }) => step === 5 && controller.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(maskLosses([[0, 6]], tower(factors))).rejects.toThrow(/indices from 0 to 5/);
    await expect(maskLosses([], tower(factors))).rejects.toThrow(/masks is 0/);
    await expect(maskLosses([[0, 3]], { ...tower(factors), finish: () => Number.NaN })).rejects.toThrow(/loss with blocks 0,3 is NaN/);
    const stack = tower(factors);
    await expect(maskLosses(allMasks(6, 3), { ...stack, block: (i, x) => { if (i === 4) throw new Error('broken'); return stack.block(i, x); } })).rejects.toThrow('broken');
    // a block that hands its input on
    expect((await maskLosses([[0, 1], [0, 2]], { ...stack, block: (i, x) => (i === 0 ? x : stack.block(i, x)) })).map(({ loss }) => loss)).toEqual([-0.5, 4]);
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe.each(['cpu', 'wasm'] as const)('a study of masks through hooks on %s', (backend) => {
  beforeAll(async () => void (await useBackend({ prefer: backend })));
  const rng = createRng(9);
  const shake = (model: DiT | MAR): void => {
    // adaLN-Zero blocks begin as the identity
    for (const p of model.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.mul(0.05, randomNormal(rng, p.shape as [number, number])))));
  };

  it('agrees with the masked model, on several passes', async () => {
    const model = new DiT({ inputSize: 4, patchSize: 2, inChannels: 2, hiddenSize: 16, depth: 5, numHeads: 2, mlpRatio: 2, classDropoutProb: 0, numClasses: 3, learnSigma: false }, { init: rng });
    shake(model);
    const x = Array.from({ length: 2 }, () => randomNormal<tf.Rank.R4>(rng, [2, 4, 4, 2]));
    const [t, y] = [tf.tensor1d([10, 700]), tf.tensor1d([0, 2], 'int32')];
    let computed = 0;
    const hooked: HookedModel = {
      depth: 5,
      loss: async (hook) => {
        const counted: typeof hook = (site, z, run) => hook(site, z, (h) => ((computed += 1), run(h)));
        const value = tf.tidy(() => tf.addN(x.map((images) => tf.mean(tf.square(tf.sub(model.forward(images, t, y, { hook: counted }), images))))));
        const [out] = await value.data();
        value.dispose();
        return out!;
      },
    };
    const before = tf.memory().numTensors;
    const masks = [...allMasks(5, 3), [0, 1, 2, 3, 4], [4], [0]];
    const losses = await maskLosses(masks, hooked);
    const shared = computed;
    for (const { kept, loss } of losses) expect(loss).toBeCloseTo(await calibrationLoss(5, kept, hooked.loss), 5);
    expect(shared).toBeLessThan((computed - shared) * 0.7);
    expect(new Set(losses.map(({ loss }) => loss.toFixed(6))).size).toBe(masks.length);
    expect(tf.memory().numTensors).toBe(before);
    await expect(maskLosses([[0]], { ...hooked, depth: 4 })).rejects.toThrow(/depth is 4, expected the model's 5/);
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([x, t, y]);
    model.dispose();
  });

  it('counts blocks over the stacks of a model', async () => {
    const model = new MAR({ inputSize: 4, patchSize: 1, inChannels: 2, encoderWidth: 16, encoderDepth: 3, encoderHeads: 2, decoderWidth: 16, decoderDepth: 2, decoderHeads: 2, mlpRatio: 2, bufferSize: 2, numClasses: 2, labelDropProb: 0.1, attentionDropout: 0, projectionDropout: 0, headDepth: 1, headWidth: 8, diffusionBatchMul: 1, normEpsilon: 1e-6, maskRatioMin: 0.7 }, { init: rng });
    shake(model);
    const tokens = randomNormal<tf.Rank.R3>(rng, [2, 16, 2]);
    const mask = TokenMask.ofOrders([rng.permutation(16), rng.permutation(16)], 10);
    const loss = async (hook: Parameters<HookedModel['loss']>[0]): Promise<number> => {
      const value = tf.tidy(() => tf.mean(tf.square(model.decode(model.encode(tokens, mask, model.classEmbedding(tf.tensor1d([0, 1], 'int32')), { hook }), mask, { hook }))));
      const [out] = await value.data();
      value.dispose();
      return out!;
    };
    const before = tf.memory().numTensors;
    const losses = await maskLosses(allMasks(5, 3), { depth: { encoder_blocks: 3, decoder_blocks: 2 }, loss });
    for (const { kept, loss: value } of losses) {
      const hook = hooksByStack({ encoder_blocks: maskHook(kept.filter((k) => k < 3)), decoder_blocks: maskHook(kept.filter((k) => k >= 3).map((k) => k - 3)) });
      expect(value).toBeCloseTo(await loss(hook), 5);
    }
    await expect(maskLosses([[0]], { depth: 3, loss })).rejects.toThrow(/depth of each stack by name, as the model has encoder_blocks and decoder_blocks/);
    await expect(maskLosses([[0]], { depth: { encoder_blocks: 4, decoder_blocks: 2 }, loss })).rejects.toThrow(/depth of encoder_blocks is 4, expected the model's 3/);
    expect(tf.memory().numTensors).toBe(before);
    tokens.dispose();
    model.dispose();
  });

  it('runs without branches', async () => {
    const model = new DiT({ inputSize: 4, patchSize: 2, inChannels: 2, hiddenSize: 16, depth: 2, numHeads: 2, mlpRatio: 2, classDropoutProb: 0, numClasses: 3, learnSigma: false }, { init: rng });
    shake(model);
    const out = (dropped: Parameters<typeof branchMaskHook>[0]): Float32Array => tf.tidy(() => model.forward(tf.ones([1, 4, 4, 2]), tf.tensor1d([5]), tf.tensor1d([1], 'int32'), { branchHook: branchMaskHook(dropped) }).dataSync() as Float32Array);
    // a branch whose gate is closed adds nothing
    const close = (block: number, from: number): void => tf.tidy(() => {
      const { weight, bias } = (model.blocks[block] as DiTBlock).adaLN_modulation[1];
      const gate = tf.concat([tf.ones([from]), tf.zeros([16]), tf.ones([96 - from - 16])]);
      weight.assign(tf.mul(weight, tf.expandDims(gate, 1)));
      bias!.assign(tf.mul(bias!, gate));
    });
    const [whole, attention, both] = [out({}), out({ attention: [0] }), out({ attention: [0], mlp: [1] })];
    close(0, 32);
    expect(Array.from(out({}))).toEqual(Array.from(attention, (v) => expect.closeTo(v, 5) as number));
    close(1, 80);
    expect(Array.from(out({}))).toEqual(Array.from(both, (v) => expect.closeTo(v, 5) as number));
    expect(whole).not.toEqual(attention);
    model.dispose();
  });
});

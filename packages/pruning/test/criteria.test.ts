import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { type BlockHook, Linear, Module, randomNormal, runBlocks } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { BlockSimilarity, allMasks, calibrationLoss, centredGram, chooseIntervals, hsic, removedRuns, taylorImportance } from '../src/index.js';

class Scale extends Module {
  readonly a: tf.Variable;
  readonly b: tf.Variable;
  constructor(a: number, b: number) {
    super();
    this.a = tf.variable(tf.tensor1d([a, -a]));
    this.b = tf.variable(tf.scalar(b));
  }
}

describe('the Taylor criterion', () => {
  // L_t = w_t Σ_k (c_k · Σ a_k + d_k · b_k): gradients are known
  const blocks = [new Scale(2, 3), new Scale(1, -1), new Scale(4, 0.5)];
  const weights = [1, 0.5, 0.25, 0.001];
  const loss = (step: number): tf.Scalar => tf.add(10, tf.mul(weights[step]!, tf.addN(blocks.map((block, k) => tf.add(tf.mul(k + 1, tf.sum(tf.slice(block.a, 0, 1))), tf.mul(5, block.b)))))) as tf.Scalar;

  it('is |Σ g·θ| over a block, or Σ |g·θ|, accumulated over timesteps', async () => {
    const before = tf.memory().numTensors;
    const G = 1 + 0.5 + 0.25 + 0.001;
    const { importance, steps } = await taylorImportance(blocks, loss, { steps: 4, threshold: 0 });
    expect(steps).toBe(4);
    for (const [k, [a, b]] of [[2, 3], [1, -1], [4, 0.5]].entries()) expect(importance[k]).toBeCloseTo(Math.abs(G * ((k + 1) * a! + 5 * b!)), 3);
    const elements = await taylorImportance(blocks, loss, { steps: 4, threshold: 0, over: 'elements' });
    for (const [k, [a, b]] of [[2, 3], [1, -1], [4, 0.5]].entries()) expect(elements.importance[k]).toBeCloseTo(G * ((k + 1) * Math.abs(a!) + 5 * Math.abs(b!)), 3);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('ends at the first timestep whose loss is small, and passes over what the loss does not depend on', async () => {
    const falling = (step: number): tf.Scalar => tf.mul([1, 0.6, 0.4, 1][step]!, tf.square(blocks[0]!.b)) as tf.Scalar;
    const before = tf.memory().numTensors;
    const { importance, steps } = await taylorImportance(blocks, falling, { steps: 4, threshold: 0.5 });
    expect(steps).toBe(2);
    expect(importance[0]).toBeCloseTo(1.6 * 2 * 3 * 3, 4);
    expect(importance.slice(1)).toEqual([0, 0]);
    await expect(taylorImportance(blocks, () => tf.mul(Number.NaN, tf.square(blocks[0]!.b)) as tf.Scalar, { steps: 1 })).rejects.toThrow(/loss at step 0 is NaN/);
    await expect(taylorImportance([], loss, { steps: 1 })).rejects.toThrow(/trainable parameters/);
    await expect(taylorImportance(blocks, () => tf.scalar(1), { steps: 1 })).rejects.toThrow('taylorImportance: loss is "independent of the blocks", expected a loss that is computed with their parameters');
    const throws = (): tf.Scalar => {
      tf.square(blocks[0]!.b);
      throw new TypeError('a bug');
    };
    await expect(taylorImportance(blocks, throws, { steps: 1 })).rejects.toThrow('a bug');
    expect(tf.memory().numTensors).toBe(before);
    await expect(taylorImportance(blocks, loss, { steps: 4, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(tf.memory().numTensors).toBe(before);
  });

  it('agrees with differences of the loss where a block is scaled towards nothing', async () => {
    const rng = createRng(3);
    const layers = Array.from({ length: 3 }, () => new Linear(4, 4, { init: rng }));
    const x = randomNormal<tf.Rank.R3>(rng, [2, 3, 4]);
    const value = (): tf.Scalar => tf.mean(tf.square(runBlocks('blocks', layers, x, (layer, h) => tf.add(h, layer.forward(h)) as tf.Tensor3D))) as tf.Scalar;
    const { importance } = await taylorImportance(layers, value, { steps: 1 });
    for (const [k, layer] of layers.entries()) {
      const shrink = (by: number): number =>
        tf.tidy(() => {
          const kept = layer.parameters().map((p) => tf.clone(p));
          for (const p of layer.parameters()) p.assign(tf.mul(p, 1 - by));
          const out = value().dataSync()[0]!;
          layer.parameters().forEach((p, i) => p.assign(kept[i]!));
          return out;
        });
      expect(importance[k]! / Math.abs((shrink(-0.01) - shrink(0.01)) / 0.02)).toBeCloseTo(1, 2);
    }
  });
});

/** HSIC₁ by its definition: the mean of h(i, j, q, r) over ordered quadruples of different rows (Song et al. 2012). */
function bruteHsic(k: number[][], l: number[][]): number {
  const n = k.length;
  let [sum, count] = [0, 0];
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) for (let q = 0; q < n; q++) for (let r = 0; r < n; r++) {
    if (new Set([i, j, q, r]).size < 4) continue;
    sum += k[i]![j]! * (l[i]![j]! + l[q]![r]! - 2 * l[i]![q]!);
    count += 1;
  }
  return sum / count;
}

describe.each(['cpu', 'wasm'] as const)('CKA on %s', (backend) => {
  beforeAll(async () => void (await useBackend({ prefer: backend })));

  const gram = (rows: number[][]): number[][] => rows.map((a) => rows.map((b) => a.reduce((s, v, i) => s + v * b[i]!, 0)));
  const turn = (h: tf.Tensor3D): tf.Tensor3D => tf.add(tf.mul(3, tf.reverse(h, -1)), 7) as tf.Tensor3D;

  it.each(['unbiased', 'plain'] as const)('agrees with its definition, %s', async (estimator) => {
    const rng = createRng(7);
    const [before, n] = [tf.memory().numTensors, 6];
    const similarity = new BlockSimilarity({ estimator });
    const weights = Array.from({ length: 2 }, () => randomNormal<tf.Rank.R2>(rng, [4, 4]));
    const sums = Array.from({ length: 3 }, () => [0, 0, 0]);
    for (let batch = 0; batch < 2; batch++) {
      const x = randomNormal<tf.Rank.R3>(rng, [n, 2, 4]);
      const states: number[][][] = [tf.tidy(() => tf.reshape(x, [n, 8]).arraySync() as number[][])];
      tf.tidy(() => void runBlocks('blocks', weights, x, (w, h) => {
        const y = tf.add(h, tf.reshape(tf.tanh(tf.matMul(tf.reshape(h, [-1, 4]), w)), h.shape)) as tf.Tensor3D;
        states.push(tf.reshape(y, [n, 8]).arraySync() as number[][]);
        return y;
      }, { hook: similarity.hook }));
      await similarity.endBatch();
      for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) {
        const [k, l] = [gram(states[i]!), gram(states[j]!)];
        if (estimator === 'unbiased') sums[i]![j]! += bruteHsic(k, l);
        else {
          // tr(KHLH)/(n−1)²
          const center = (m: number[][]): number[][] => {
            const row = m.map((r) => r.reduce((a, b) => a + b, 0) / n);
            const all = row.reduce((a, b) => a + b, 0) / n;
            return m.map((r, a) => r.map((v, b) => v - row[a]! - row[b]! + all));
          };
          const [a, b] = [center(k), center(l)];
          sums[i]![j]! += a.reduce((s, r, p) => s + r.reduce((t, v, q) => t + v * b[q]![p]!, 0), 0) / (n - 1) ** 2;
        }
      }
      x.dispose();
    }
    const matrix = similarity.similarity();
    for (let i = 0; i < 3; i++) for (let j = 0; j < 3; j++) expect(matrix[i]![j]).toBeCloseTo(i === j ? 1 : sums[i]![j]! / Math.sqrt(sums[i]![i]! * sums[j]![j]!), 4);
    tf.dispose(weights);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('does not see turns, scales and shifts, even large ones', async () => {
    const x = randomNormal<tf.Rank.R3>(createRng(1), [5, 3, 4]);
    const similarity = new BlockSimilarity({ rows: 'tokens' });
    tf.tidy(() => void runBlocks('blocks', [0, 1], x, (i, h) => (i === 0 ? turn(h) : tf.add(h, 1000) as tf.Tensor3D), { hook: similarity.hook }));
    await similarity.endBatch();
    for (const v of similarity.similarity().flat()) expect(v).toBeCloseTo(1, 3);
    x.dispose();
  });

  it('refuses too few rows, blocks left out, and no batch', async () => {
    const x = tf.ones([3, 1, 2]) as tf.Tensor3D;
    const before = tf.memory().numTensors;
    const similarity = new BlockSimilarity();
    const forward = (depth: number): void => tf.tidy(() => void runBlocks('blocks', Array.from({ length: depth }, () => 1), x, (f, h) => tf.mul(h, f) as tf.Tensor3D, { hook: similarity.hook }));
    forward(2);
    await expect(similarity.endBatch()).rejects.toThrow(/rows to compare is 3, expected at least 4/);
    expect(() => similarity.similarity()).toThrow(/at least one; call endBatch/);
    const plain = new BlockSimilarity({ estimator: 'plain' });
    tf.tidy(() => void runBlocks('blocks', [1, 2], x, (f, h) => tf.mul(h, f) as tf.Tensor3D, { hook: plain.hook }));
    await plain.endBatch();
    tf.tidy(() => void runBlocks('blocks', [1], x, (f, h) => tf.mul(h, f) as tf.Tensor3D, { hook: plain.hook }));
    await expect(plain.endBatch()).rejects.toThrow(/is 2, expected 3: one forward pass/);
    await expect(plain.endBatch()).rejects.toThrow(/is 0, expected a forward pass before it/);
    const twice = new BlockSimilarity({ estimator: 'plain' });
    for (let i = 0; i < 2; i++) tf.tidy(() => void runBlocks('blocks', [1], x, (f, h) => tf.mul(h, f) as tf.Tensor3D, { hook: twice.hook }));
    await expect(twice.endBatch()).rejects.toThrow(/is 4, expected 2: one forward pass/);
    plain.dispose();
    expect(tf.memory().numTensors).toBe(before);
    x.dispose();
  });

  it('unbiased HSIC of independent rows is 0 in the mean, plain is not', () => {
    const rng = createRng(5);
    let [unbiased, plain] = [0, 0];
    for (let i = 0; i < 400; i++) {
      const [k, l] = [0, 1].map(() => gram(Array.from({ length: 5 }, () => [...rng.normal(3)])).flat()) as [number[], number[]];
      unbiased += hsic(centredGram(k, 5, 'unbiased'), centredGram(l, 5, 'unbiased'), 5, 'unbiased') / 400;
      plain += hsic(centredGram(k, 5, 'plain'), centredGram(l, 5, 'plain'), 5, 'plain') / 400;
    }
    expect(Math.abs(unbiased)).toBeLessThan(0.2); // about three standard errors
    expect(plain).toBeGreaterThan(0.5);
  });
});

describe('intervals', () => {
  const rng = createRng(11);
  const matrix = (depth: number): number[][] => {
    const values = Array.from({ length: depth + 1 }, () => [...rng.uniform(depth + 1)]);
    return values.map((row, i) => row.map((v, j) => (i === j ? 1 : i < j ? v : values[j]![i]!)));
  };
  const costOf = (similarity: number[][], kept: readonly number[]): number => removedRuns(similarity.length - 1, kept).reduce((sum, [s, e]) => sum + 1 - similarity[s]![e]!, 0);

  it.each([[7, 3], [8, 4], [8, 1], [6, 6], [5, 4]])('of %i blocks keep %i at the least cost there is', (depth, count) => {
    for (let trial = 0; trial < 10; trial++) {
      const similarity = matrix(depth);
      for (const options of [{}, { runs: 1 }, { runs: 2 }, { keepLast: true }]) {
        const masks = allMasks(depth, count).filter((kept) => removedRuns(depth, kept).length <= ('runs' in options ? options.runs! : depth) && (!('keepLast' in options) || kept.at(-1) === depth - 1));
        const best = Math.min(...masks.map((kept) => costOf(similarity, kept)));
        const choice = chooseIntervals(similarity, count, options);
        expect(choice.cost).toBeCloseTo(best, 10);
        expect(choice.kept.length).toBe(count);
        expect(costOf(similarity, choice.kept)).toBeCloseTo(best, 10);
        expect(choice.removed).toEqual(removedRuns(depth, choice.kept));
      }
    }
  });

  it('are found where blocks do nothing, and refused where they cannot be', () => {
    // states of the blocks' boundaries: blocks 2, 3 and 5 change nothing
    const states = [0, 1, 2, 2, 2, 3, 3];
    const similarity = states.map((a) => states.map((b) => 1 / (1 + Math.abs(a - b))));
    expect(chooseIntervals(similarity, 3)).toEqual({ kept: [0, 1, 4], removed: [[2, 4], [5, 6]], cost: 0 });
    expect(chooseIntervals(similarity, 4, { runs: 1 }).removed).toEqual([[2, 4]]);
    expect(chooseIntervals(similarity, 5, { keepLast: true }).kept).toEqual([0, 1, 2, 4, 5]);
    expect(() => chooseIntervals([[1, 0]], 1)).toThrow(/square matrix/);
    expect(() => chooseIntervals(similarity, 7)).toThrow(/from 1 to the model's 6/);
    expect(() => chooseIntervals(similarity, 3, { runs: 0 })).toThrow(/runs is 0/);
  });
});

describe('the calibration loss', () => {
  it('is the loss under the mask', async () => {
    const x = tf.ones([1, 1, 1]) as tf.Tensor3D;
    const loss = async (hook: BlockHook): Promise<number> => runBlocks('blocks', [2, 3, 5], x, (f, h) => tf.mul(h, f) as tf.Tensor3D, { hook }).dataSync()[0]!;
    expect(await calibrationLoss(3, [2, 0], loss)).toBe(10);
    await expect(calibrationLoss(3, [3], loss)).rejects.toThrow(/indices from 0 to 2/);
    await expect(calibrationLoss(3, [1], async () => Number.POSITIVE_INFINITY)).rejects.toThrow(/calibration loss with blocks 1 is Infinity/);
  });
});

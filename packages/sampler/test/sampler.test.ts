import { createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { LayerGates, combinations, parseGroups } from '../src/index.js';

describe('groups', () => {
  it('cover the depth, options in lexicographic order', () => {
    expect(parseGroups('1:2', 6).map(({ start, size, kept }) => [start, size, kept])).toEqual([[0, 2, 1], [2, 2, 1], [4, 2, 1]]);
    expect(parseGroups([[2, 4], [3, 4]], 8).map((g) => g.options.length)).toEqual([6, 4]);
    expect(combinations(4, 2)).toEqual([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
  });

  it('are listed up to 20,000 options, and relaxed beyond', () => {
    expect(parseGroups([[8, 16], [9, 18], [1, 2]], 36).map(({ options, relaxed }) => [options.length, relaxed])).toEqual([[12870, false], [0, true], [2, false]]);
    expect(parseGroups('14:28', 28)).toEqual([{ start: 0, size: 28, kept: 14, options: [], relaxed: true }]);
    expect(parseGroups('2:4', 4, { mostOptions: 5 })[0]!.relaxed).toBe(true);
  });

  it.each([
    ['1:3', 8, /M can be 2, 4, 8/],
    ['3:2', 8, /N:M with 1 ≤ N ≤ M/],
    ['half', 8, /N:M, e\.g\. '1:2'/],
    [[[1, 2], [1, 4]] as const, 8, /these cover 6/],
    ['0:28', 28, /N:M with 1 ≤ N ≤ M/],
    [undefined, 4, /groups is missing, expected N:M, e\.g\. '1:2', or a list/],
    [[1, 2], 4, /expected N:M, e\.g\. '1:2', or a list of \[N, M\]/],
    ['1:2', Number.NaN, /depth is NaN/],
  ])('refuse %j over %s layers', (scheme, depth, message) => {
    expect(() => parseGroups(scheme as never, depth)).toThrow(message);
  });
});

describe('sampled masks', () => {
  it('follow softmax(scaling · gate), whatever the temperature', async () => {
    const gates = new LayerGates([[1, 3]], 3, { init: 0 });
    gates.gates[0]!.assign(tf.tensor2d([[0.01, 0.0, -0.005]]));
    const weights = [1, 0, -0.5].map(Math.exp);
    const total = weights.reduce((a, b) => a + b, 0);
    for (const tau of [4, 0.1]) {
      const { choices } = gates.sample(30_000, { tau, scaling: 100, rng: createRng(1) });
      const shares = await tf.mean(choices[0]!, 0).data();
      for (const [i, w] of weights.entries()) expect(Math.abs(shares[i]! - w / total)).toBeLessThan(0.015);
    }
  });

  it('keep N of M in every group, and have the softmax’s gradient', async () => {
    const gates = new LayerGates('2:4', 8);
    const { masks } = gates.sample(16, { tau: 1, scaling: 100, rng: createRng(2) });
    const all = tf.stack(masks);
    expect([...(await tf.sum(tf.slice(all, 0, 4), 0).data())]).toEqual(Array.from({ length: 16 }, () => 2));
    expect(new Set(await all.data())).toEqual(new Set([0, 1]));
    const gumbel = gates.groups.map(({ options }) => tf.tensor2d(createRng(3).gumbel(16 * options.length), [16, options.length]));
    const weights = tf.tensor1d(createRng(4).normal(8));
    const { grads } = tf.variableGrads(() => tf.sum(tf.mul(tf.sum(tf.stack(gates.sample(16, { tau: 2, scaling: 5, gumbel }).masks), 1), weights)) as tf.Scalar, gates.parameters());
    // by hand: choices → softmax of (5·gate + gumbel)/2, times the table of options
    const byHand = tf.variableGrads(() => {
      const sums = gates.groups.map(({ options, start }, i) => {
        const soft = tf.softmax(tf.div(tf.add(tf.mul(gates.gates[i]!, 5), gumbel[i]!), 2));
        const values = tf.tensor1d(options.map((kept) => kept.reduce((sum, j) => sum + weights.dataSync()[start + j]!, 0)));
        return tf.sum(tf.mul(soft, values));
      });
      return tf.addN(sums) as tf.Scalar;
    }, gates.parameters()).grads;
    for (const gate of gates.gates) {
      const [got, wanted] = [await grads[gate.name]!.data(), await byHand[gate.name]!.data()];
      for (const [i, g] of got.entries()) expect(Math.abs(g - wanted[i]!)).toBeLessThan(1e-5);
    }
  });

  it('are all of a group that keeps all, whose one gate has no gradient', async () => {
    const gates = new LayerGates([[3, 3], [1, 2]], 5);
    const { value, grads } = tf.variableGrads(() => tf.sum(tf.concat(gates.sample(4, { tau: 1, scaling: 10, rng: createRng(3) }).masks.slice(0, 3))) as tf.Scalar, gates.parameters());
    expect([...(await value.data()), ...(await grads[gates.gates[0]!.name]!.data())]).toEqual([12, 0]);
    expect((await gates.decide(10)).kept.slice(0, 3)).toEqual([0, 1, 2]);
  });

  it('need a positive temperature and a source of noise', () => {
    const gates = new LayerGates('1:2', 2);
    expect(() => gates.sample(1, { tau: 0, scaling: 1, rng: createRng(0) })).toThrow(/tau is 0/);
    for (const scaling of [Number.NaN, -1, undefined as unknown as number]) expect(() => gates.sample(1, { tau: 1, scaling, rng: createRng(0) })).toThrow(`sample: scaling is ${scaling ?? 'missing'}, expected a finite number from 0, e.g. 100`);
    for (const batch of [-1, 0, 1.5]) expect(() => gates.sample(batch, { tau: 1, scaling: 1, rng: createRng(0) })).toThrow(`sample: batch is ${batch}, expected a positive integer`);
    expect(() => gates.sample(1, { tau: 1, scaling: 1, per: 'step' as 'batch', rng: createRng(0) })).toThrow(/per is "step", expected 'sample' or 'batch'/);
    expect(() => gates.sample(1, { tau: 1, scaling: 1 })).toThrow(/an Rng/);
  });
});

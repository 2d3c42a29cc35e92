import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { LayerGates, RunningBaseline, combinations, decide, parseGroups, relaxedTopK, scoreFunction, topKInclusion } from '../src/index.js';

const LOGITS = [0.8, -0.5, 0.1, 1.5, -1, 0.4];

/** Probability of each of the 20 ways to keep 3 of 6, by all orders in which they can be drawn. */
function enumerated(logits: readonly number[]): { kept: number[]; probability: number }[] {
  const weights = logits.map(Math.exp);
  const total = weights.reduce((a, b) => a + b, 0);
  return combinations(6, 3).map((kept) => {
    const [a, b, c] = kept as [number, number, number];
    const orders = [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] as [number, number, number][];
    const probability = orders.reduce((sum, [i, j, k]) => sum + (weights[i]! / total) * (weights[j]! / (total - weights[i]!)) * (weights[k]! / (total - weights[i]! - weights[j]!)), 0);
    return { kept, probability };
  });
}
const marginals = (logits: readonly number[]): number[] => logits.map((_, i) => enumerated(logits).reduce((sum, { kept, probability }) => sum + (kept.includes(i) ? probability : 0), 0));

describe('probabilities of inclusion', () => {
  it('are those of all orders of drawing 3 of 6', () => {
    expect(enumerated(LOGITS).reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 12);
    for (const scale of [1, 5, 0]) {
      const logits = LOGITS.map((l) => l * scale);
      for (const [i, p] of topKInclusion(logits, 3).entries()) expect(p).toBeCloseTo(marginals(logits)[i]!, 9);
    }
  });

  it('add up to 14 of 28, also where they are extreme', () => {
    for (const scale of [1, 100]) {
      const p = topKInclusion(Array.from(createRng(1).normal(28), (l) => l * scale), 14);
      expect(p.reduce((a, b) => a + b)).toBeCloseTo(14, 8);
      expect(p.every((q) => q >= 0 && q <= 1)).toBe(true);
    }
    expect(topKInclusion([1, 2], 2)).toEqual([1, 1]);
  });
});

describe.each(['cpu', 'wasm'] as const)('groups too large to list on %s', (backend) => {
  beforeAll(async () => void (await useBackend({ prefer: backend })));
  const small = (): LayerGates => {
    const gates = new LayerGates('3:6', 6, { mostOptions: 10, init: 0 });
    gates.gates[0]!.assign(tf.tensor2d([LOGITS]));
    return gates;
  };

  it('keep exactly 3 of 6, as often as enumeration says, one draw a sample or a batch', async () => {
    const gates = small();
    const draws = 20_000;
    const masks = await tf.stack(gates.sample(draws, { tau: 0.5, scaling: 1, rng: createRng(1) }).masks, 1).array() as number[][];
    const perBatch: number[][] = [];
    const rng = createRng(2);
    for (let i = 0; i < draws; i++) perBatch.push([...(await gates.sampleForBatch({ tau: 1, scaling: 1, rng })).kept]);
    const exact = enumerated(LOGITS);
    for (const subsets of [masks.map((row) => [...row.keys()].filter((j) => row[j] === 1)), perBatch]) {
      const counts = new Map<string, number>();
      for (const kept of subsets) counts.set(String(kept), (counts.get(String(kept)) ?? 0) + 1);
      // four standard deviations
      for (const { kept, probability } of exact) expect(Math.abs((counts.get(String(kept)) ?? 0) / draws - probability)).toBeLessThan(4 * Math.sqrt((probability * (1 - probability)) / draws));
    }
  });

  it('have the gradient of their relaxation', async () => {
    const gates = small();
    const noise = tf.tensor2d(createRng(3).gumbel(24), [4, 6]);
    const weights = tf.tensor2d(createRng(4).normal(24), [4, 6]);
    const { grads } = tf.variableGrads(() => tf.sum(tf.mul(tf.stack(gates.sample(4, { tau: 0.7, scaling: 2, gumbel: [noise] }).masks, 1), weights)) as tf.Scalar, gates.gates);
    const got = await grads[gates.gates[0]!.name]!.data();
    // by hand, in float64
    const [g, w] = [await noise.array() as number[][], await weights.array() as number[][]];
    const value = (logits: readonly number[]): number =>
      g.reduce((sum, row, n) => {
        let alpha = row.map((z, j) => 2 * logits[j]! + z);
        for (let k = 0; k < 3; k++) {
          const e = alpha.map((a) => Math.exp(a / 0.7));
          const total = e.reduce((a, b) => a + b, 0);
          for (const [j, v] of e.entries()) sum += (v / total) * w[n]![j]!;
          alpha = alpha.map((a, j) => a + Math.log(1 - e[j]! / total));
        }
        return sum;
      }, 0);
    for (let j = 0; j < 6; j++) {
      const shifted = (d: number): number => value(LOGITS.map((l, i) => (i === j ? l + d : l)));
      expect(got[j]).toBeCloseTo((shifted(1e-5) - shifted(-1e-5)) / 2e-5, 3);
    }
  });

  it('point, on average, where enumeration’s gradient of the expected cost points', async () => {
    const gates = small();
    const costs = [1, -0.5, 2, 0.3, -1, 0.7];
    const expected = (logits: readonly number[]): number => enumerated(logits).reduce((sum, { kept, probability }) => sum + probability * kept.reduce((s, j) => s + costs[j]!, 0), 0);
    const exact = LOGITS.map((_, j) => (expected(LOGITS.map((l, i) => (i === j ? l + 1e-5 : l))) - expected(LOGITS.map((l, i) => (i === j ? l - 1e-5 : l)))) / 2e-5);
    const { grads } = tf.variableGrads(() => tf.mean(tf.sum(tf.mul(tf.stack(gates.sample(20_000, { tau: 0.5, scaling: 1, rng: createRng(5) }).masks, 1), [costs]), 1)) as tf.Scalar, gates.gates);
    const relaxed = await grads[gates.gates[0]!.name]!.data();
    const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => Array.from(a).reduce((sum, x, i) => sum + x * b[i]!, 0);
    expect(dot(relaxed, exact) / Math.sqrt(dot(relaxed, relaxed) * dot(exact, exact))).toBeGreaterThan(0.97);
    expect(Math.sqrt(dot(relaxed, relaxed) / dot(exact, exact))).toBeGreaterThan(0.5);
    expect(Math.sqrt(dot(relaxed, relaxed) / dot(exact, exact))).toBeLessThan(2);
  });

  it('tend to the top layers as the temperature falls, and always add up to N', async () => {
    const x = tf.tensor2d([LOGITS]);
    for (const tau of [4, 1, 0.1, 0.01]) expect((await tf.sum(relaxedTopK(x, 3, tau)).data())[0]).toBeCloseTo(3, 4);
    for (const [i, m] of (await relaxedTopK(x, 3, 0.01).data()).entries()) expect(m).toBeCloseTo([1, 0, 0, 1, 0, 1][i]!, 3);
  });

  it('decide by the N largest logits, the likeliest set, with their inclusion as confidence', async () => {
    const { kept, groups: [only] } = await small().decide(1);
    expect(kept).toEqual(enumerated(LOGITS).toSorted((a, b) => b.probability - a.probability)[0]!.kept);
    const p = marginals(LOGITS);
    expect(only!.confidence).toBeCloseTo(Math.min(p[0]!, p[3]!, p[5]!), 6);
    expect(only!.probabilities).toEqual([]);
    expect((await tf.stack(small().decidedMasks(1)).data()).join('')).toBe('100101');
    expect(() => decide(parseGroups('14:28', 28), [[1, 2]], 1)).toThrow(/expected 28 values/);
  });

  it('stand beside listed ones', async () => {
    const gates = LayerGates.fromScores([[1, 2], [14, 28]], [0, 1, ...Array.from({ length: 28 }, (_, i) => i % 2)], { strength: 0.02 });
    expect(gates.gates.map(({ shape }) => shape)).toEqual([[1, 2], [1, 28]]);
    const decision = await gates.decide(100);
    expect(decision.kept).toEqual([1, ...Array.from({ length: 14 }, (_, i) => 3 + 2 * i)]);
    expect(decision.groups.flatMap((g) => g.inclusion)).toHaveLength(30);
    const { masks, choices } = gates.sample(3, { tau: 1, scaling: 100, rng: createRng(0) });
    expect([masks.length, choices.map(({ shape }) => shape)]).toEqual([30, [[3, 2], [3, 28]]]);
    expect([...(await tf.sum(tf.stack(masks), 0).data())]).toEqual([15, 15, 15]);
    const before = tf.memory().numTensors;
    const drawn = gates.sample(3, { tau: 1, scaling: 100, rng: createRng(0) });
    tf.dispose([...drawn.masks, ...drawn.choices]);
    const draw = await gates.sampleForBatch({ tau: 1, scaling: 100, rng: createRng(0) });
    tf.dispose([...draw.masks(2), draw.logProbability()]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it.each(['straight-through', 'score function'])('learn 3 of 6 by %s', async (how) => {
    const costs = [1, 0, 1, 0, 1, 0];
    const gates = new LayerGates('3:6', 6, { mostOptions: 10 });
    const optimizer = tf.train.adam(0.005);
    const rng = createRng(7);
    const baseline = new RunningBaseline();
    for (let step = 0; step < (how === 'straight-through' ? 40 : 300); step++) {
      if (how === 'straight-through') optimizer.minimize(() => tf.mean(tf.sum(tf.mul(tf.stack(gates.sample(32, { tau: 1, scaling: 100, rng }).masks, 1), [costs]), 1)) as tf.Scalar, false, gates.gates);
      else {
        const draw = await gates.sampleForBatch({ tau: 1, scaling: 100, rng });
        const loss = draw.kept.reduce((sum, j) => sum + costs[j]!, 0);
        optimizer.minimize(() => scoreFunction(tf.scalar(loss), draw.logProbability(), baseline.value), false, gates.gates);
        baseline.update(loss);
      }
    }
    const decision = await gates.decide(100);
    expect(decision.kept).toEqual([1, 3, 5]);
    expect(decision.groups[0]!.confidence).toBeGreaterThan(0.7);
    optimizer.dispose();
  });

  it('know the probability of the order in which they drew', async () => {
    const gates = small();
    const draw = await gates.sampleForBatch({ tau: 1, scaling: 1, rng: createRng(9) });
    const p = Math.exp((await draw.logProbability().data())[0]!);
    const weights = LOGITS.map(Math.exp);
    const total = weights.reduce((a, b) => a + b, 0);
    const [a, b, c] = draw.kept as [number, number, number];
    const orders = [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]].map(([i, j, k]) => (weights[i!]! / total) * (weights[j!]! / (total - weights[i!]!)) * (weights[k!]! / (total - weights[i!]! - weights[j!]!)));
    expect(Math.min(...orders.map((q) => Math.abs(q - p)))).toBeLessThan(1e-6);
  });
});

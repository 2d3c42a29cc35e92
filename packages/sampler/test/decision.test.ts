import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { DecisionHistory, LayerGates, decide, defaultScaling, defaultTau, parseGroups } from '../src/index.js';

describe('decisions', () => {
  it('are the most likely options, the first of equals, with their probability', async () => {
    const groups = parseGroups('1:2', 4);
    const { kept, groups: [first, second] } = decide(groups, [[0.02, 0.03], [0.01, 0.01]], 100);
    expect(kept).toEqual([1, 2]);
    expect(first!.confidence).toBeCloseTo(1 / (1 + Math.exp(-1)), 12);
    expect(second!.confidence).toBe(0.5);
    expect(() => decide(groups, [[0.1], [0, 0]], 1)).toThrow(/group 0/);
    expect(() => decide(groups, [[Number.NaN, 0], [0, 0]], 1)).toThrow(/finite values/);
    const gates = new LayerGates('1:2', 4);
    gates.gates[1]!.assign(tf.tensor2d([[0, 1]]));
    expect((await gates.decide(100)).kept).toEqual([0, 3]);
    expect((await tf.stack(gates.decidedMasks(1)).data()).join('')).toBe('1001');
  });

  it('tell how likely every layer is kept', () => {
    const gates = [[0.3, -0.2, 0.1, 0, 0.5, -0.4], [1, 2, 3]];
    const { groups: [pairs, single] } = decide(parseGroups([[2, 4], [1, 3]], 7), gates, 2);
    const weights = gates[0]!.map((g) => Math.exp(2 * g)); // options 01 02 03 12 13 23
    const total = weights.reduce((a, b) => a + b, 0);
    const of = (...options: number[]): number => options.reduce((sum, o) => sum + weights[o]!, 0) / total;
    for (const [i, p] of [of(0, 1, 2), of(0, 3, 4), of(1, 3, 5), of(2, 4, 5)].entries()) expect(pairs!.inclusion[i]).toBeCloseTo(p, 12);
    expect(single!.inclusion).toEqual(single!.probabilities);
  });

  it('are annealed as in the paper', () => {
    expect([defaultTau(0, 11), defaultTau(5, 11), defaultTau(10, 11)]).toEqual([4, expect.closeTo(2.05, 12), expect.closeTo(0.1, 12)]);
    expect(defaultScaling(3, 10)).toBe(100);
    expect(defaultTau(0, 1)).toBe(4);
  });
});

describe('the history of decisions', () => {
  const groups = parseGroups('1:2', 2);
  const recorded = (): DecisionHistory => {
    const history = new DecisionHistory();
    for (const [step, gates] of [[1, [0, 1]], [2, [1, 0]], [3, [1, 0]], [7, [2, 0]]] as const) history.record(step, decide(groups, [gates], 1));
    return history;
  };

  it('tells for how long they stood, and when to stop', () => {
    expect(new DecisionHistory().stableFor()).toBe(0);
    expect(new DecisionHistory().shouldStop({ confidence: 0, stableSteps: 0 })).toBe(false);
    const history = recorded(); // at last: confidence 0.88, unchanged for 5 steps
    expect(history.stableFor()).toBe(5);
    expect(history.shouldStop({ confidence: 0.88, stableSteps: 5 })).toBe(true);
    expect(history.shouldStop({ confidence: 0.89, stableSteps: 5 })).toBe(false);
    expect(history.shouldStop({ confidence: 0.88, stableSteps: 6 })).toBe(false);
    expect(() => history.shouldStop({ confidence: 88, stableSteps: 1 })).toThrow(/from 0 to 1/);
    expect(() => history.shouldStop({ confidence: 0.5, stableSteps: Number.NaN })).toThrow(/stableSteps is NaN/);
  });

  it('holds every layer’s probability, and goes through JSON', () => {
    const history = recorded();
    expect(history.rows.map(({ inclusion }) => inclusion.map((p) => +p.toFixed(3)))).toEqual([[0.269, 0.731], [0.731, 0.269], [0.731, 0.269], [0.881, 0.119]]);
    const read = DecisionHistory.fromJSON(JSON.parse(JSON.stringify(history)));
    expect(read.rows).toEqual(history.rows);
    read.record(9, decide(groups, [[3, 0]], 1));
    expect([read.stableFor(), history.rows.length]).toEqual([7, 4]);
  });

  it.each([
    [null, /version is missing/],
    [{ version: 2, rows: [] }, /version is 2, expected 1/],
    [{ version: 1 }, /rows is missing/],
    [{ version: 1, rows: [{ step: 1, kept: [2], confidence: [1], inclusion: [0, 1] }] }, /row 0/],
    [{ version: 1, rows: [{ step: 1, kept: [1], confidence: [], inclusion: [0, 1] }] }, /row 0/],
    [{ version: 1, rows: [{ step: 1, kept: [1], confidence: [1] }] }, /row 0/],
  ])('refuses %j', (stored, message) => expect(() => DecisionHistory.fromJSON(stored)).toThrow(message));
});

describe.each(['cpu', 'wasm'] as const)('warm starts on %s', (backend) => {
  beforeAll(async () => void (await useBackend({ prefer: backend })));

  it('favour the options with the best scores, as strongly as asked', async () => {
    const scores = [3, 1, 0, 4, 2, 2]; // mean 2, deviation √(10/6)
    const deviation = Math.sqrt(10 / 6);
    const gates = LayerGates.fromScores([[2, 4], [1, 2]], scores, { strength: 0.02 });
    const decision = await gates.decide(100);
    expect(decision.kept).toEqual([0, 3, 4]);
    const { options } = gates.groups[0]!;
    const values = await gates.gates[0]!.data();
    for (const [o, [a, b]] of options.entries()) expect(values[o]).toBeCloseTo(0.02 + (0.02 * (scores[a!]! + scores[b!]! - 4)) / deviation, 6);
    expect(decision.groups[1]!.confidence).toBeCloseTo(0.5, 6);
    // odds of the best against the worst pair: e^(100 · 0.02 · 6/deviation)
    const { probabilities } = decision.groups[0]!;
    expect(Math.log(probabilities[2]! / probabilities[3]!)).toBeCloseTo((2 * 6) / deviation, 3);
  });

  it('take redundancies upside down, and equal scores as no preference', async () => {
    expect((await LayerGates.fromScores('1:2', [0.9, 0.2, 0.3, 0.8], { keep: 'lowest' }).decide(100)).kept).toEqual([1, 2]);
    expect((await LayerGates.fromScores('1:2', [7, 7]).decide(100)).groups[0]!.probabilities).toEqual([0.5, 0.5]);
    expect((await LayerGates.fromScores('1:2', [1, 7], { strength: 0 }).decide(100)).groups[0]!.probabilities).toEqual([0.5, 0.5]);
  });

  it('can be left where the loss says otherwise', async () => {
    const gates = LayerGates.fromScores('1:2', [1, 0], { strength: 0.01 });
    const optimizer = tf.train.adam(0.01);
    const rng = createRng(3);
    for (let step = 0; step < 60; step++) optimizer.minimize(() => tf.mean(gates.sample(64, { tau: 1, scaling: 100, rng }).masks[0]!), false, gates.gates);
    expect((await gates.decide(100)).kept).toEqual([1]);
    optimizer.dispose();
  });

  it('refuse scores that do not fit, and leave nothing behind', () => {
    const before = tf.memory().numTensors;
    LayerGates.fromScores('2:4', [1, 2, 3, 4]).dispose();
    expect(() => LayerGates.fromScores('1:2', [1, 2, 3])).toThrow(/M can be 3/);
    expect(() => LayerGates.fromScores('1:2', [1, Number.NaN])).toThrow(/finite numbers/);
    expect(() => LayerGates.fromScores('1:2', [1, 2], { strength: -1 })).toThrow(/strength is -1/);
    expect(tf.memory().numTensors).toBe(before);
  });
});

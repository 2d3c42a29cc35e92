import { createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { inceptionScore } from '../src/index.js';

const classes = 5;
const logits = createRng(1).normal(40 * classes).map((v) => 3 * v);
const softmax = (row: ArrayLike<number>): number[] => {
  const e = Array.from(row, (v) => Math.exp(v));
  const total = e.reduce((a, b) => a + b, 0);
  return e.map((v) => v / total);
};
const oneHot = (labels: number[]) => labels.flatMap((label) => Array.from({ length: classes }, (_, c) => (c === label ? 1 : 0)));

describe('inceptionScore', () => {
  it('is 1 where every image gets the same prediction', () => {
    expect(inceptionScore(new Float32Array(20 * classes), { classes, splits: 4 })).toEqual({ mean: expect.closeTo(1, 12) as number, std: expect.closeTo(0, 12) as number, splits: 4 });
  });

  it('is the number of classes where predictions are certain and balanced', () => {
    expect(inceptionScore(oneHot([0, 1, 2, 3, 4]), { classes, rows: 'probabilities', splits: 1 }).mean).toBeCloseTo(classes, 12);
    expect(inceptionScore(oneHot([0, 1, 2, 3, 4]).map((p) => 1000 * p), { classes, splits: 1 }).mean).toBeCloseTo(classes, 12);
  });

  it('is the mean and deviation over splits', () => {
    // one split certain of two classes, one of a single class: scores 2 and 1
    const { mean, std } = inceptionScore(oneHot([0, 1, 3, 3]), { classes, rows: 'probabilities', splits: 2 });
    expect(mean).toBeCloseTo(1.5, 12);
    expect(std).toBeCloseTo(0.5, 12);
  });

  it('is the same from logits and from their softmax', () => {
    const probabilities = Array.from({ length: 40 }, (_, i) => softmax(logits.subarray(i * classes, (i + 1) * classes))).flat();
    const [a, b] = [inceptionScore(logits, { classes }), inceptionScore(probabilities, { classes, rows: 'probabilities' })];
    expect(a.mean).toBeCloseTo(b.mean, 12);
    expect(a.std).toBeCloseTo(b.std, 12);
  });

  it('does not depend on the order with one split, and deals rows in the order given', () => {
    const order = createRng(2).permutation(40);
    const reordered = Array.from(order, (row) => [...logits.subarray(row * classes, (row + 1) * classes)]).flat();
    expect(inceptionScore(logits, { classes, splits: 1, order }).mean).toBeCloseTo(inceptionScore(logits, { classes, splits: 1 }).mean, 12);
    expect(inceptionScore(logits, { classes, splits: 4, order })).toEqual(inceptionScore(reordered, { classes, splits: 4 }));
    expect(inceptionScore(logits, { classes, splits: 4, order }).mean).not.toBeCloseTo(inceptionScore(logits, { classes, splits: 4 }).mean, 6);
  });

  it('leaves what is left to the last part of splitSize', () => {
    const rows = (from: number, to: number) => inceptionScore(logits.subarray(from * classes, to * classes), { classes, splits: 1 }).mean;
    const { mean, splits } = inceptionScore(logits, { classes, splitSize: 15 });
    expect(splits).toBe(3);
    expect(mean).toBeCloseTo((rows(0, 15) + rows(15, 30) + rows(30, 40)) / 3, 12);
    expect(inceptionScore(logits, { classes, splitSize: 5000 }).splits).toBe(1);
  });

  it('refuses what it cannot score', () => {
    const broken = logits.slice();
    broken[2 * classes + 1] = Infinity;
    expect(() => inceptionScore(broken, { classes })).toThrow('inceptionScore: logits: row 2, column 1 is Infinity');
    expect(() => inceptionScore(logits, { classes: 7 })).toThrow('a multiple of the 7 values of a row');
    expect(() => inceptionScore([], { classes })).toThrow('at least one row');
    expect(() => inceptionScore(logits, { classes, splits: 41 })).toThrow('an integer from 1 to the 40 images');
    expect(() => inceptionScore(logits, { classes, splitSize: 0 })).toThrow('a positive integer');
    expect(() => inceptionScore(logits, { classes, splits: 2, splitSize: 5 })).toThrow('nothing where splitSize is given');
    expect(() => inceptionScore(logits, { classes, rows: 'probabilities' })).toThrow("pass rows: 'logits'");
    expect(() => inceptionScore(oneHot([0, 1]), { classes, splits: 1, rows: 'probabilities', order: [0, 0] })).toThrow('order, place 1 is 0, expected each of 0 to 1 once');
    expect(() => inceptionScore(oneHot([0, 1]), { classes, splits: 1, rows: 'probabilities', order: [0] })).toThrow('order: length is 1');
  });
});

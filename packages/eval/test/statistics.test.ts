import { ArgumentError, createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { FeatureStatistics } from '../src/index.js';
import { correlatedRows, gap, statistics } from './gaussians.js';

const [count, dimension] = [300, 12];
const rows = correlatedRows(count, dimension, 1);
const whole = statistics(rows, dimension);

describe('FeatureStatistics', () => {
  it('has mean and covariance by definition, dividing by count − 1', () => {
    const { mean, covariance } = statistics([1, 10, 2, 30, 6, 20], 2);
    expect([...mean]).toEqual([3, 20]);
    // deviations (−2, −10), (−1, 10), (3, 0)
    expect([...covariance]).toEqual([7, 5, 5, 100]);
  });

  it('adds up shards of any size, in any order, to the whole', () => {
    const shards = [0, 1, 2, 50, 51, 250, count].map((from, i, bounds) => {
      const shard = new FeatureStatistics(dimension);
      shard.add(rows.subarray(from * dimension, (bounds[i + 1] ?? count) * dimension));
      return shard;
    });
    const merged = new FeatureStatistics(dimension);
    for (const shard of shards.toReversed()) merged.merge(shard);
    const sum = merged.finish();
    expect(sum.count).toBe(count);
    expect(gap(sum.mean, whole.mean)).toBeLessThan(1e-14);
    expect(gap(sum.covariance, whole.covariance)).toBeLessThan(1e-13);
  });

  it('is the same row by row and in any order of rows', () => {
    const shuffled = new FeatureStatistics(dimension);
    for (const i of createRng(2).permutation(count)) shuffled.add(rows.subarray(i * dimension, (i + 1) * dimension));
    const { mean, covariance } = shuffled.finish();
    expect(gap(mean, whole.mean)).toBeLessThan(1e-13);
    expect(gap(covariance, whole.covariance)).toBeLessThan(1e-13);
  });

  it('leaves a merged accumulator as it was, and can take itself', () => {
    const accumulator = new FeatureStatistics(2);
    accumulator.add([1, 2, 3, 5]);
    const other = new FeatureStatistics(2);
    other.merge(accumulator);
    other.merge(other);
    expect(other.count).toBe(4);
    expect([...other.finish().mean]).toEqual([2, 3.5]);
    expect(gap(other.finish().covariance, [4 / 3, 2, 2, 3])).toBeLessThan(1e-15);
    expect([...accumulator.finish().covariance]).toEqual([2, 3, 3, 4.5]);
  });

  it('cancels nothing where the offset is a hundred million times the spread', () => {
    const far = statistics([1e8, 1e8 + 1, 1e8 + 2, 1e8 + 3], 1);
    expect(far.covariance[0]).toBe(5 / 3);
  });

  it('names the place of a value that is not finite', () => {
    const broken = rows.slice();
    broken[7 * dimension + 3] = Number.NaN;
    expect(() => statistics(broken, dimension)).toThrow('FeatureStatistics.add: features: row 7, column 3 is NaN, expected a finite number; the images or the feature network are broken');
  });

  it('refuses one row, ragged rows, no dimension and another dimension', () => {
    expect(() => statistics([1, 2, 3], 3)).toThrow('FeatureStatistics: rows is 1, expected at least 2');
    expect(() => statistics([1, 2, 3], 2)).toThrow('a multiple of the 2 values of a row');
    expect(() => new FeatureStatistics(0)).toThrow(ArgumentError);
    expect(() => new FeatureStatistics(2).merge(new FeatureStatistics(3))).toThrow('dimension is 3, expected 2');
  });
});

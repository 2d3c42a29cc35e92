import { createRng } from '@tinyfusion/core';
import { FeatureStatistics, type Statistics } from '../src/index.js';

/** `count` rows of `dimension` correlated features with unequal variances, far from the origin. */
export function correlatedRows(count: number, dimension: number, seed: number): Float32Array {
  const noise = createRng(seed).normal(count * dimension);
  return noise.map((value, i) => {
    const j = i % dimension;
    const previous = j === 0 ? 0 : noise[i - 1]!;
    return 5 + (0.3 + j / dimension) * (value + 0.7 * previous);
  });
}

/** Statistics of rows. */
export function statistics(rows: ArrayLike<number>, dimension: number): Statistics {
  const accumulator = new FeatureStatistics(dimension);
  accumulator.add(rows);
  return accumulator.finish();
}

/** Statistics as a formula gives them. */
export function given(mean: number[], covariance: number[]): Statistics {
  return { count: 1000, dimension: mean.length, mean: Float64Array.from(mean), covariance: Float64Array.from(covariance) };
}

/** Largest absolute difference. */
export function gap(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let most = a.length === b.length ? 0 : Infinity;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i]! - b[i]!));
  return most;
}

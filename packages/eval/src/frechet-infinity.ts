import { ArgumentError, type LongTaskOptions, type Rng, throwIfCancelled } from '@tinyfusion/core';
import { frechetDistance } from './frechet.js';
import { FeatureStatistics, type Statistics, rowsOf } from './statistics.js';

/** Options of {@link frechetInfinity}. */
export interface FrechetInfinityOptions extends LongTaskOptions {
  /** Shuffles the rows and draws the subsets. */
  rng: Rng;
  /** Parts that subsets are made of, and their number, at least 3. Default 10: subsets of 5,000 to 50,000 of 50,000 rows. */
  parts?: number;
}

/** A Fréchet distance without the bias of a finite number of samples; plain JSON. */
export interface FrechetInfinity {
  /** The line's value at 1/N = 0. */
  distance: number;
  /** Its standard error, from how far the subsets lie from the line. They share rows: another set of samples may lie farther off. */
  standardError: number;
  /** Distances of the subsets, by their number of rows. */
  subsets: { count: number; distance: number }[];
}

/**
 * FID∞ (Chong & Forsyth 2020): the distance of N samples is too large by a share of 1/N, so it is measured for subsets of
 * several sizes and extended along a straight line to 1/N = 0. A subset is some of the equal parts of the shuffled rows,
 * drawn anew for each size, whose statistics add up; so the rows are gone through once.
 *
 * @param features rows of generated features, `reference.dimension` values each
 * @param reference statistics of many samples: its own bias stays
 * @throws ArgumentError where a part has no more rows than features: the bias of singular covariances is no straight line
 */
export async function frechetInfinity(features: ArrayLike<number>, reference: Statistics, { rng, parts = 10, signal, onProgress }: FrechetInfinityOptions): Promise<FrechetInfinity> {
  const d = reference.dimension;
  const rows = rowsOf('frechetInfinity: features', features, d);
  if (typeof rng?.permutation !== 'function') throw new ArgumentError('FrechetInfinityOptions.rng', rng, 'a generator, e.g. createRng(0)');
  if (!Number.isInteger(parts) || parts < 3) throw new ArgumentError('FrechetInfinityOptions.parts', parts, 'an integer of at least 3');
  if (Math.floor(rows / parts) <= d) throw new ArgumentError('frechetInfinity: rows', rows, `at least ${parts * (d + 1)}, so that each of ${parts} parts has more rows than the ${d} features; or fewer parts`);
  let done = 0;
  const tick = async () => {
    onProgress?.({ task: 'distance without bias', step: ++done, total: 2 * parts, unit: 'subset' });
    await new Promise((resolve) => setTimeout(resolve, 0));
    throwIfCancelled(signal, 'distance without bias');
  };
  throwIfCancelled(signal, 'distance without bias');
  const order = rng.permutation(rows);
  const accumulators: FeatureStatistics[] = [];
  for (let part = 0; part < parts; part++) {
    accumulators.push(accumulated(features, order.subarray(Math.floor((part * rows) / parts), Math.floor(((part + 1) * rows) / parts)), d));
    await tick();
  }
  const subsets: FrechetInfinity['subsets'] = [];
  for (let size = 1; size <= parts; size++) {
    const union = new FeatureStatistics(d);
    for (const part of rng.permutation(parts).subarray(0, size)) union.merge(accumulators[part]!);
    subsets.push({ count: union.count, distance: frechetDistance(union.finish(), reference).distance });
    await tick();
  }
  return { ...interceptOf(subsets.map(({ count, distance }) => [1 / count, distance] as const)), subsets };
}

function accumulated(features: ArrayLike<number>, order: ArrayLike<number>, d: number): FeatureStatistics {
  const statistics = new FeatureStatistics(d);
  const row = new Float64Array(d);
  for (let i = 0; i < order.length; i++) {
    for (let j = 0, from = order[i]! * d; j < d; j++) row[j] = features[from + j]!;
    statistics.add(row);
  }
  return statistics;
}

/** Least squares of y on x: the line's value at 0 and its standard error. */
function interceptOf(points: readonly (readonly [x: number, y: number])[]): { distance: number; standardError: number } {
  const n = points.length;
  const [meanX, meanY] = [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis]!, 0) / n) as [number, number];
  const spread = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  const slope = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0) / spread;
  const distance = meanY - slope * meanX;
  const left = points.reduce((sum, [x, y]) => sum + (y - distance - slope * x) ** 2, 0);
  return { distance, standardError: Math.sqrt((left / (n - 2)) * (1 / n + meanX ** 2 / spread)) };
}

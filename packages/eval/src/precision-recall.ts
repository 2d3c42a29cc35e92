import { ArgumentError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { checkFinite } from './statistics.js';

/** Options of {@link precisionRecall}. */
export interface PrecisionRecallOptions extends LongTaskOptions {
  /** Length of a row of features. */
  dimension: number;
  /** Which neighbour spans the ball around each point, from 1, the point itself not counted. Default 3. */
  neighbours?: number;
}

/** Shares in [0, 1]. */
export interface PrecisionRecall {
  /** Generated samples that lie in the real manifold. */
  precision: number;
  /** Real samples that lie in the generated manifold. */
  recall: number;
}

/**
 * Improved precision and recall (Kynkäänniemi et al. 2019): a manifold is the union of balls around its samples, each
 * reaching to the k-th nearest neighbour; the border belongs to it. Squared distances are compared, in float64.
 *
 * @param generated rows of features
 * @param real rows of features
 */
export async function precisionRecall(generated: ArrayLike<number>, real: ArrayLike<number>, { dimension, neighbours = 3, signal, onProgress }: PrecisionRecallOptions): Promise<PrecisionRecall> {
  const sets = [generated, real].map((features, i) => {
    const name = i === 0 ? 'precisionRecall: generated' : 'precisionRecall: real';
    const count = features.length / dimension;
    if (!Number.isInteger(count) || count <= neighbours) throw new ArgumentError(name, count, `more than ${neighbours} rows of ${dimension} values`);
    checkFinite(name, features, dimension);
    return { features: Float64Array.from(features), count };
  }) as [PointSet, PointSet];
  const total = sets[0].count + sets[1].count;
  let done = 0;
  const radii: Float64Array[] = [];
  for (const set of sets) {
    const own = new Float64Array(set.count);
    for (let i = 0; i < set.count; i++) {
      own[i] = kthSmallest(distances(set, i, set, dimension), neighbours);
      if (++done % 64 === 0) await tick(done);
    }
    radii.push(own);
  }
  const [generatedRadii, realRadii] = radii as [Float64Array, Float64Array];
  const [fake, truth] = sets;
  const inReal = new Uint8Array(fake.count);
  const inFake = new Uint8Array(truth.count);
  for (let i = 0; i < fake.count; i++) {
    const row = distances(fake, i, truth, dimension);
    for (let j = 0; j < truth.count; j++) {
      if (row[j]! <= realRadii[j]!) inReal[i] = 1;
      if (row[j]! <= generatedRadii[i]!) inFake[j] = 1;
    }
    if (i % 64 === 0) await tick(total);
  }
  onProgress?.({ task: 'precision and recall', step: total, total, unit: 'sample' });
  const share = (flags: Uint8Array) => flags.reduce((a, b) => a + b, 0) / flags.length;
  return { precision: share(inReal), recall: share(inFake) };

  async function tick(step: number): Promise<void> {
    throwIfCancelled(signal, 'precision and recall');
    onProgress?.({ task: 'precision and recall', step: Math.min(step, total - 1), total, unit: 'sample' });
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

interface PointSet {
  features: Float64Array;
  count: number;
}

/** Squared distances from point `i` of one set to every point of another. */
function distances(from: PointSet, i: number, to: PointSet, d: number): Float64Array {
  const out = new Float64Array(to.count);
  const [a, b] = [from.features, to.features];
  for (let j = 0; j < to.count; j++) {
    let sum = 0;
    for (let k = 0; k < d; k++) {
      const difference = a[i * d + k]! - b[j * d + k]!;
      sum += difference * difference;
    }
    out[j] = sum;
  }
  return out;
}

/** The k-th smallest value, counted from 0: the point itself is at distance 0 and takes place 0. */
function kthSmallest(values: Float64Array, k: number): number {
  const smallest: number[] = [];
  for (const value of values) {
    if (smallest.length <= k || value < smallest[k]!) {
      let at = smallest.length;
      while (at > 0 && smallest[at - 1]! > value) at--;
      smallest.splice(at, 0, value);
      if (smallest.length > k + 1) smallest.pop();
    }
  }
  return smallest[k]!;
}

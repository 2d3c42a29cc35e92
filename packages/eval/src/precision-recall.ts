import { ArgumentError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { rowsOf } from './statistics.js';

/** Options of {@link precisionRecall}. */
export interface PrecisionRecallOptions extends LongTaskOptions {
  /** Length of a row of features. */
  dimension: number;
  /** Which neighbour spans the ball around each point, from 1, the point itself not counted. Default 3. */
  neighbours?: number;
  /** Rows computed between two reports. Default 64. */
  batch?: number;
}

/** How two sets of samples cover each other; plain JSON. */
export interface PrecisionRecall {
  /** Share of generated samples that lie in the real manifold. */
  precision: number;
  /** Share of real samples that lie in the generated manifold. */
  recall: number;
  /** Real balls a generated sample lies in, on average, over k: about 1 for equal distributions, not bounded by it. */
  density: number;
  /** Share of real balls that hold a generated sample. */
  coverage: number;
}

/**
 * Improved precision and recall (Kynkäänniemi et al. 2019): a manifold is the union of balls around its samples, each
 * reaching to the k-th nearest neighbour in its own set; the border belongs to it. Density and coverage (Naeem et al.
 * 2020) come from the same real balls; that paper takes k = 5. Squared distances are compared, in float64.
 *
 * @param generated rows of features
 * @param real rows of features
 * @throws ArgumentError where a set has no k-th neighbour, or a value is not finite
 */
export async function precisionRecall(generated: ArrayLike<number>, real: ArrayLike<number>, { dimension, neighbours = 3, batch = 64, signal, onProgress }: PrecisionRecallOptions): Promise<PrecisionRecall> {
  for (const [name, value] of Object.entries({ neighbours, batch })) if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`PrecisionRecallOptions.${name}`, value, 'a positive integer');
  const fake = pointSet('precisionRecall: generated', generated, dimension, neighbours);
  const truth = pointSet('precisionRecall: real', real, dimension, neighbours);
  const total = 2 * fake.count + truth.count;
  let done = 0;
  const tick = async () => {
    if (++done % batch !== 0) return;
    throwIfCancelled(signal, 'precision and recall');
    onProgress?.({ task: 'precision and recall', step: Math.min(done, total - 1), total, unit: 'sample' });
    await new Promise((resolve) => setTimeout(resolve, 0));
  };
  throwIfCancelled(signal, 'precision and recall');
  const generatedRadii = await radii(fake, neighbours, tick);
  const realRadii = await radii(truth, neighbours, tick);

  const inReal = new Uint8Array(fake.count);
  const inGenerated = new Uint8Array(truth.count);
  const covered = new Uint8Array(truth.count);
  let pairs = 0;
  const row = new Float64Array(truth.count);
  for (let i = 0; i < fake.count; i++) {
    squaredDistances(fake, i, truth, 0, row);
    for (let j = 0; j < truth.count; j++) {
      if (row[j]! <= realRadii[j]!) {
        inReal[i] = 1;
        covered[j] = 1;
        pairs++;
      }
      if (row[j]! <= generatedRadii[i]!) inGenerated[j] = 1;
    }
    await tick();
  }
  onProgress?.({ task: 'precision and recall', step: total, total, unit: 'sample' });
  return { precision: share(inReal), recall: share(inGenerated), density: pairs / (neighbours * fake.count), coverage: share(covered) };
}

interface PointSet {
  readonly features: Float64Array;
  readonly count: number;
  readonly dimension: number;
}

function pointSet(name: string, features: ArrayLike<number>, dimension: number, neighbours: number): PointSet {
  const count = rowsOf(name, features, dimension);
  if (count <= neighbours) throw new ArgumentError(`${name}: rows`, count, `more than ${neighbours}, the neighbour that spans a ball`);
  return { features: Float64Array.from(features), count, dimension };
}

/** Squared distance of every point to its k-th nearest other point. */
async function radii(set: PointSet, k: number, tick: () => Promise<void>): Promise<Float64Array> {
  const nearest = new Float64Array(set.count * k).fill(Infinity); // k ascending for each point
  const row = new Float64Array(set.count);
  for (let i = 0; i < set.count; i++) {
    squaredDistances(set, i, set, i + 1, row); // a pair counts for both of its points
    for (let j = i + 1; j < set.count; j++) {
      insert(nearest, i * k, k, row[j]!);
      insert(nearest, j * k, k, row[j]!);
    }
    await tick();
  }
  return Float64Array.from({ length: set.count }, (_, i) => nearest[i * k + k - 1]!);
}

/** Puts a value in its place among k ascending ones, if it is below the last. */
function insert(values: Float64Array, from: number, k: number, value: number): void {
  let at = from + k - 1;
  if (value >= values[at]!) return;
  for (; at > from && values[at - 1]! > value; at--) values[at] = values[at - 1]!;
  values[at] = value;
}

/** Writes the squared distances from point `i` to the points of `to` from `first` on; four at a time share its loads. */
function squaredDistances({ features: a, dimension: d }: PointSet, i: number, { features: b, count }: PointSet, first: number, out: Float64Array): void {
  let j = first;
  for (; j + 4 <= count; j += 4) {
    let [s0, s1, s2, s3] = [0, 0, 0, 0];
    for (let k = 0, p = i * d, q = j * d; k < d; k++, p++, q++) {
      const x = a[p]!;
      const d0 = x - b[q]!;
      const d1 = x - b[q + d]!;
      const d2 = x - b[q + 2 * d]!;
      const d3 = x - b[q + 3 * d]!;
      s0 += d0 * d0;
      s1 += d1 * d1;
      s2 += d2 * d2;
      s3 += d3 * d3;
    }
    out[j] = s0;
    out[j + 1] = s1;
    out[j + 2] = s2;
    out[j + 3] = s3;
  }
  for (; j < count; j++) {
    let sum = 0;
    for (let k = 0; k < d; k++) sum += (a[i * d + k]! - b[j * d + k]!) ** 2;
    out[j] = sum;
  }
}

function share(flags: Uint8Array): number {
  return flags.reduce((a, b) => a + b, 0) / flags.length;
}

import { ArgumentError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { type Frame, type PointSet, commonFrame, eachRow, packPoints } from './close-pairs.js';
import { LinearAlgebra } from './linear-algebra.js';
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
 * 2020) come from the same real balls; that paper takes k = 5. Squared distances are compared as float64 has them: float32
 * products decide only what their rounding cannot change.
 *
 * @param generated rows of features
 * @param real rows of features
 * @throws ArgumentError where a set has no k-th neighbour, or a value is not finite
 */
export async function precisionRecall(generated: ArrayLike<number>, real: ArrayLike<number>, { dimension, neighbours = 3, batch = 64, signal, onProgress }: PrecisionRecallOptions): Promise<PrecisionRecall> {
  for (const [name, value] of Object.entries({ neighbours, batch })) if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`PrecisionRecallOptions.${name}`, value, 'a positive integer');
  for (const [name, features] of [['generated', generated], ['real', real]] as const) {
    const count = rowsOf(`precisionRecall: ${name}`, features, dimension);
    if (count <= neighbours) throw new ArgumentError(`precisionRecall: ${name}: rows`, count, `more than ${neighbours}, the neighbour that spans a ball`);
  }
  const algebra = new LinearAlgebra();
  const frame = commonFrame([generated, real], dimension);
  const [fake, truth] = [packPoints(algebra, generated, frame), packPoints(algebra, real, frame)];
  const total = 2 * fake.count + truth.count;
  let done = 0;
  const tick = async () => {
    if (++done % batch !== 0) return;
    throwIfCancelled(signal, 'precision and recall');
    onProgress?.({ task: 'precision and recall', step: Math.min(done, total - 1), total, unit: 'sample' });
    await new Promise((resolve) => setTimeout(resolve, 0));
  };
  throwIfCancelled(signal, 'precision and recall');
  const generatedRadii = await radii(algebra, fake, frame, neighbours, tick);
  const realRadii = await radii(algebra, truth, frame, neighbours, tick);

  const inReal = new Uint8Array(fake.count);
  const inGenerated = new Uint8Array(truth.count);
  const covered = new Uint8Array(truth.count);
  let pairs = 0;
  await eachRow(algebra, fake, truth, frame, false, (i, row) => {
    const reach = generatedRadii[i]!;
    for (let j = 0; j < truth.count; j++) {
      const least = row.atLeast(j);
      const own = realRadii[j]!;
      if (least > own && (least > reach || inGenerated[j] === 1)) continue;
      const most = row.atMost(j);
      const decided = (most <= own || least > own) && (most <= reach || least > reach);
      const distance = decided ? most : row.exact(j);
      if (distance <= own) {
        inReal[i] = 1;
        covered[j] = 1;
        pairs++;
      }
      if (distance <= reach) inGenerated[j] = 1;
    }
    return tick();
  });
  onProgress?.({ task: 'precision and recall', step: total, total, unit: 'sample' });
  return { precision: share(inReal), recall: share(inGenerated), density: pairs / (neighbours * fake.count), coverage: share(covered) };
}

/** Squared distance of every point to its k-th nearest other point. */
async function radii(algebra: LinearAlgebra, set: PointSet, frame: Frame, k: number, tick: () => Promise<void>): Promise<Float64Array> {
  const nearest = new Float64Array(set.count * k).fill(Infinity); // k ascending for each point
  await eachRow(algebra, set, set, frame, true, (i, row) => {
    for (let j = i + 1; j < set.count; j++) {
      const least = row.atLeast(j);
      if (least >= nearest[i * k + k - 1]! && least >= nearest[j * k + k - 1]!) continue;
      const distance = row.exact(j); // a pair counts for both of its points
      insert(nearest, i * k, k, distance);
      insert(nearest, j * k, k, distance);
    }
    return tick();
  });
  return Float64Array.from({ length: set.count }, (_, i) => nearest[i * k + k - 1]!);
}

/** Puts a value in its place among k ascending ones, if it is below the last. */
function insert(values: Float64Array, from: number, k: number, value: number): void {
  let at = from + k - 1;
  if (value >= values[at]!) return;
  for (; at > from && values[at - 1]! > value; at--) values[at] = values[at - 1]!;
  values[at] = value;
}

function share(flags: Uint8Array): number {
  return flags.reduce((a, b) => a + b, 0) / flags.length;
}

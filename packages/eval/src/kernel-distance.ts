import { ArgumentError, type LongTaskOptions, type Rng, throwIfCancelled } from '@tinyfusion/core';
import { type LinearAlgebra, withLinearAlgebra } from './linear-algebra.js';
import { rowsOf } from './statistics.js';

/** Rows of one subset. */
export interface KernelSubset {
  generated: ArrayLike<number>;
  real: ArrayLike<number>;
}

/** Options of {@link kernelDistance}. */
export interface KernelDistanceOptions extends LongTaskOptions {
  /** Length of a row of features. */
  dimension: number;
  /** Number of subsets. Default 100. */
  subsets?: number;
  /** Rows of each subset. Default 1000. */
  subsetSize?: number;
  /** Draws the subsets, without repetition within one. */
  rng?: Rng;
  /** In place of `rng`, `subsets` and `subsetSize`: the rows of each subset. */
  indices?: readonly KernelSubset[];
}

/** Mean and standard deviation (dividing by their number) of the squared MMD over subsets; plain JSON. */
export interface KernelDistance {
  mean: number;
  std: number;
}

/**
 * Kernel Inception distance (Bińkowski et al. 2018): the squared maximum mean discrepancy under (xᵀy/D + 1)³, without
 * the diagonals within each set, so that its expectation over equal distributions is 0. Defaults are torch-fidelity's.
 *
 * @param generated rows of features
 * @param real rows of features
 * @throws ArgumentError for values that are not finite, subsets that do not fit the sets, and where neither `rng` nor
 * `indices` is given
 */
export async function kernelDistance(generated: ArrayLike<number>, real: ArrayLike<number>, options: KernelDistanceOptions): Promise<KernelDistance> {
  const { dimension, signal, onProgress } = options;
  const [n, m] = [rowsOf('kernelDistance: generated', generated, dimension), rowsOf('kernelDistance: real', real, dimension)];
  const chosen = options.indices ?? drawSubsets(n, m, options);
  if (chosen.length < 1) throw new ArgumentError('KernelDistanceOptions.indices: subsets', 0, 'at least one');
  const values: number[] = [];
  for (const [i, subset] of chosen.entries()) {
    throwIfCancelled(signal, 'kernel distance');
    const a = subsetRows(`KernelDistanceOptions.indices, generated rows of subset ${i}`, generated, subset.generated, n, dimension);
    const b = subsetRows(`KernelDistanceOptions.indices, real rows of subset ${i}`, real, subset.real, m, dimension);
    values.push(withLinearAlgebra((algebra) => squaredDiscrepancy(algebra, a, b, dimension)));
    onProgress?.({ task: 'kernel distance', step: i + 1, total: chosen.length, unit: 'subset' });
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  const mean = values.reduce((x, y) => x + y, 0) / values.length;
  return { mean, std: Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length) };
}

function drawSubsets(n: number, m: number, { subsets = 100, subsetSize = 1000, rng }: KernelDistanceOptions): KernelSubset[] {
  if (rng === undefined) throw new ArgumentError('KernelDistanceOptions.rng', rng, 'an Rng that draws the subsets, or indices');
  if (!Number.isInteger(subsets) || subsets < 1) throw new ArgumentError('KernelDistanceOptions.subsets', subsets, 'a positive integer');
  const most = Math.min(n, m);
  if (!Number.isInteger(subsetSize) || subsetSize < 2 || subsetSize > most) throw new ArgumentError('KernelDistanceOptions.subsetSize', subsetSize, `an integer from 2 to the ${most} rows of the smaller set`);
  return Array.from({ length: subsets }, () => ({ generated: rng.permutation(n).subarray(0, subsetSize), real: rng.permutation(m).subarray(0, subsetSize) }));
}

function subsetRows(name: string, features: ArrayLike<number>, rows: ArrayLike<number>, count: number, d: number): Float64Array {
  if (rows.length < 2) throw new ArgumentError(name, rows.length, 'at least 2');
  const out = new Float64Array(rows.length * d);
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!;
    if (!Number.isInteger(row) || row < 0 || row >= count) throw new ArgumentError(`${name}, place ${i}`, row, `a row from 0 to ${count - 1}`);
    for (let k = 0; k < d; k++) out[i * d + k] = features[row * d + k]!;
  }
  return out;
}

function squaredDiscrepancy(algebra: LinearAlgebra, x: Float64Array, y: Float64Array, d: number): number {
  const [n, m] = [x.length / d, y.length / d];
  const [atX, atY] = [algebra.putMatrix(x, n, d, d), algebra.putMatrix(y, m, d, d)];
  return (2 * kernelSum(algebra, atX, n, atX, n, d, true)) / (n * (n - 1)) + (2 * kernelSum(algebra, atY, m, atY, m, d, true)) / (m * (m - 1)) - (2 * kernelSum(algebra, atX, n, atY, m, d, false)) / (n * m);
}

/** Rows of products that are held at a time. */
const strip = 128;

/** Sum of the kernel over pairs of rows of two sets in the memory; with `above` only pairs i < j. */
function kernelSum(algebra: LinearAlgebra, x: number, n: number, y: number, m: number, d: number, above: boolean): number {
  const products = algebra.allocateDoubles(Math.min(strip, n) * m);
  let sum = 0;
  for (let first = 0; first < n; first += strip) {
    const rows = Math.min(strip, n - first);
    const from = above ? first : 0;
    algebra.exports.gemm(1 / d, x + 8 * first * d, d, 1, y + 8 * from * d, 1, d, products, m, rows, m - from, d, 0, above ? 1 : 0, algebra.scratch);
    const values = algebra.doubles(products, rows * m);
    for (let i = 0; i < rows; i++) {
      for (let j = above ? i + 1 : 0, at = i * m + j; j < m - from; j++, at++) {
        const base = values[at]! + 1;
        sum += base * base * base;
      }
    }
  }
  return sum;
}

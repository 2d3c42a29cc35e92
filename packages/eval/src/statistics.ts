import { ArgumentError } from '@tinyfusion/core';
import { type LinearAlgebra, withLinearAlgebra } from './linear-algebra.js';

/** Mean and covariance of features, in float64. */
export interface Statistics {
  readonly count: number;
  /** D. */
  readonly dimension: number;
  readonly mean: Float64Array;
  /** D × D, divided by count − 1. */
  readonly covariance: Float64Array;
}

/** Most rows that wait for their product, and the values that so many rows may have: 8 MB at most. */
const [mostWaiting, mostValues] = [1024, 2 ** 20];
/** Rows of the scatter that are computed at a time. */
const strip = 256;

/**
 * Mean and covariance of features that come in a stream, accumulated in float64 by the update of Chan, Golub and LeVeque
 * (1983): a part brings its mean and Σ (x − mean)(x − mean)ᵀ, and joining two parts adds n·m/(n + m)·δδᵀ for the distance
 * δ of their means. So accumulators of shards can be merged, and a large common offset cancels nothing. Rows wait until
 * there are enough of them for a product of matrices.
 */
export class FeatureStatistics {
  /** Rows and mean of the parts that are in the scatter. */
  #joined = 0;
  readonly #mean: Float64Array;
  /** Σ (x − mean)(x − mean)ᵀ, upper triangle. */
  readonly #scatter: Float64Array;
  #waiting = new Float64Array(0);
  #waitingRows = 0;

  constructor(readonly dimension: number) {
    if (!Number.isInteger(dimension) || dimension < 1) throw new ArgumentError('FeatureStatistics: dimension', dimension, 'a positive integer');
    this.#mean = new Float64Array(dimension);
    this.#scatter = new Float64Array(dimension * dimension);
  }

  /** Rows taken in so far. */
  get count(): number {
    return this.#joined + this.#waitingRows;
  }

  /**
   * @param features rows of `dimension` values
   * @throws ArgumentError where a value is not finite, with its place
   */
  add(features: ArrayLike<number>): void {
    const d = this.dimension;
    const rows = rowsOf('FeatureStatistics.add: features', features, d);
    const capacity = Math.max(16, Math.min(mostWaiting, Math.floor(mostValues / d)));
    if (rows > 0 && this.#waiting.length === 0) this.#waiting = new Float64Array(capacity * d);
    for (let from = 0; from < rows; ) {
      const taken = Math.min(capacity - this.#waitingRows, rows - from);
      const to = this.#waitingRows * d;
      for (let i = 0; i < taken * d; i++) this.#waiting[to + i] = features[from * d + i]!;
      this.#waitingRows += taken;
      from += taken;
      if (this.#waitingRows === capacity) this.#join();
    }
  }

  /** Takes in what another accumulator has; that one stays as it is. */
  merge(other: FeatureStatistics): void {
    if (other.dimension !== this.dimension) throw new ArgumentError('FeatureStatistics.merge: dimension', other.dimension, `${this.dimension}, this accumulator's; both parts must come from one feature network`);
    this.#join();
    other.#join();
    const scatter = other.#scatter;
    for (let i = 0; i < scatter.length; i++) this.#scatter[i]! += scatter[i]!;
    this.#joinMean(other.#joined, other.#mean);
  }

  /** @throws ArgumentError where fewer than two rows came: there is no covariance */
  finish(): Statistics {
    this.#join();
    const [n, d] = [this.#joined, this.dimension];
    if (n < 2) throw new ArgumentError('FeatureStatistics: rows', n, 'at least 2: one image has no covariance');
    const covariance = new Float64Array(d * d);
    for (let a = 0; a < d; a++) {
      for (let b = a; b < d; b++) {
        const value = this.#scatter[a * d + b]! / (n - 1);
        covariance[a * d + b] = value;
        covariance[b * d + a] = value;
      }
    }
    return { count: n, dimension: d, mean: this.#mean.slice(), covariance };
  }

  /** Brings the waiting rows into mean and scatter. */
  #join(): void {
    const [rows, d, waiting] = [this.#waitingRows, this.dimension, this.#waiting];
    if (rows === 0) return;
    const mean = new Float64Array(d);
    for (let i = 0, at = 0; i < rows; i++) for (let j = 0; j < d; j++, at++) mean[j]! += waiting[at]!;
    for (let j = 0; j < d; j++) mean[j]! /= rows;
    for (let i = 0, at = 0; i < rows; i++) for (let j = 0; j < d; j++, at++) waiting[at]! -= mean[j]!;
    withLinearAlgebra((algebra) => this.#addProduct(algebra, waiting.subarray(0, rows * d), rows));
    this.#waitingRows = 0;
    this.#joinMean(rows, mean);
  }

  /** scatter += XᵀX of centred rows X, a strip of rows at a time. */
  #addProduct(algebra: LinearAlgebra, centred: Float64Array, rows: number): void {
    const [d, scatter] = [this.dimension, this.#scatter];
    const x = algebra.putMatrix(centred, rows, d, d);
    const product = algebra.allocateDoubles(Math.min(strip, d) * d);
    for (let first = 0; first < d; first += strip) {
      const [height, width] = [Math.min(strip, d - first), d - first];
      // the strip's part from the diagonal on
      algebra.exports.gemm(1, x + 8 * first, 1, d, x + 8 * first, d, 1, product, width, height, width, rows, 0, 1, algebra.scratch);
      const values = algebra.doubles(product, height * width);
      for (let i = 0; i < height; i++) {
        const to = (first + i) * d + first;
        for (let j = i, from = i * width; j < width; j++) scatter[to + j]! += values[from + j]!;
      }
    }
  }

  /** Counts a part whose scatter about its own mean has been added already. */
  #joinMean(count: number, mean: Float64Array): void {
    if (count === 0) return;
    const total = this.#joined + count;
    const delta = mean.map((value, j) => value - this.#mean[j]!);
    this.#addOuter(delta, (this.#joined * count) / total);
    for (let j = 0; j < delta.length; j++) this.#mean[j]! += delta[j]! * (count / total);
    this.#joined = total;
  }

  /** scatter += factor · v vᵀ */
  #addOuter(v: Float64Array, factor: number): void {
    if (factor === 0) return;
    const [d, scatter] = [this.dimension, this.#scatter];
    for (let a = 0; a < d; a++) {
      const scaled = factor * v[a]!;
      const row = a * d;
      for (let b = a; b < d; b++) scatter[row + b]! += scaled * v[b]!;
    }
  }
}

/**
 * Number of rows of `dimension` values.
 * @throws ArgumentError where they are not whole, or one is not finite: the message names its row and column
 */
export function rowsOf(argument: string, features: ArrayLike<number>, dimension: number): number {
  if (!Number.isInteger(dimension) || dimension < 1) throw new ArgumentError(`${argument}: dimension`, dimension, 'a positive integer');
  if (features.length % dimension !== 0) throw new ArgumentError(`${argument}: number of values`, features.length, `a multiple of the ${dimension} values of a row`);
  for (let i = 0; i < features.length; i++) {
    // x − x is 0 for finite numbers alone
    if (features[i]! - features[i]! !== 0) throw new ArgumentError(`${argument}: row ${Math.floor(i / dimension)}, column ${i % dimension}`, features[i], 'a finite number; the images or the feature network are broken');
  }
  return features.length / dimension;
}

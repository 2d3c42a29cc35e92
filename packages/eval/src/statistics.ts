import { ArgumentError } from '@tinyfusion/core';

/** Mean and covariance of features, in float64. */
export interface Statistics {
  readonly count: number;
  /** D. */
  readonly dimension: number;
  readonly mean: Float64Array;
  /** D × D, divided by count − 1. */
  readonly covariance: Float64Array;
}

/**
 * Mean and covariance of features that come in a stream, accumulated in float64 by the update of Chan, Golub and LeVeque
 * (1983): a part brings its mean and Σ (x − mean)(x − mean)ᵀ, and joining two parts adds n·m/(n + m)·δδᵀ for the distance
 * δ of their means. So accumulators of shards can be merged, and a large common offset cancels nothing.
 */
export class FeatureStatistics {
  #count = 0;
  readonly #mean: Float64Array;
  /** Σ (x − mean)(x − mean)ᵀ, upper triangle. */
  readonly #scatter: Float64Array;

  constructor(readonly dimension: number) {
    if (!Number.isInteger(dimension) || dimension < 1) throw new ArgumentError('FeatureStatistics: dimension', dimension, 'a positive integer');
    this.#mean = new Float64Array(dimension);
    this.#scatter = new Float64Array(dimension * dimension);
  }

  /** Rows taken in so far. */
  get count(): number {
    return this.#count;
  }

  /**
   * @param features rows of `dimension` values
   * @throws ArgumentError where a value is not finite, with its place
   */
  add(features: ArrayLike<number>): void {
    const d = this.dimension;
    const rows = rowsOf('FeatureStatistics.add: features', features, d);
    if (rows === 0) return;
    const mean = new Float64Array(d);
    for (let i = 0; i < rows; i++) for (let j = 0; j < d; j++) mean[j]! += features[i * d + j]!;
    for (let j = 0; j < d; j++) mean[j]! /= rows;
    // some rows at a time: they stay in the cache while each row of the scatter passes once
    for (let start = 0; start < rows; start += 32) {
      const count = Math.min(32, rows - start);
      const centred = new Float64Array(count * d);
      for (let i = 0; i < count; i++) for (let j = 0; j < d; j++) centred[i * d + j] = features[(start + i) * d + j]! - mean[j]!;
      this.#addOuters(centred, count);
    }
    this.#join(rows, mean);
  }

  /** Takes in what another accumulator has; that one stays as it is. */
  merge(other: FeatureStatistics): void {
    if (other.dimension !== this.dimension) throw new ArgumentError('FeatureStatistics.merge: dimension', other.dimension, `${this.dimension}, this accumulator's; both parts must come from one feature network`);
    if (other.#count === 0) return;
    const scatter = other.#scatter;
    for (let i = 0; i < scatter.length; i++) this.#scatter[i]! += scatter[i]!;
    this.#join(other.#count, other.#mean);
  }

  /** @throws ArgumentError where fewer than two rows came: there is no covariance */
  finish(): Statistics {
    const [n, d] = [this.#count, this.dimension];
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

  /** Counts a part whose scatter about its own mean has been added already. */
  #join(count: number, mean: Float64Array): void {
    const total = this.#count + count;
    const delta = mean.map((value, j) => value - this.#mean[j]!);
    this.#addOuter(delta, (this.#count * count) / total);
    for (let j = 0; j < delta.length; j++) this.#mean[j]! += delta[j]! * (count / total);
    this.#count = total;
  }

  /** scatter += Σ v vᵀ over the rows of `vs`, two at a time. */
  #addOuters(vs: Float64Array, count: number): void {
    const [d, scatter] = [this.dimension, this.#scatter];
    for (let a = 0; a < d; a++) {
      const row = a * d;
      let i = 0;
      for (; i + 2 <= count; i += 2) {
        const [p, q] = [i * d, (i + 1) * d];
        const [x, y] = [vs[p + a]!, vs[q + a]!];
        for (let b = a; b < d; b++) scatter[row + b]! += x * vs[p + b]! + y * vs[q + b]!;
      }
      if (i < count) {
        const p = i * d;
        const x = vs[p + a]!;
        for (let b = a; b < d; b++) scatter[row + b]! += x * vs[p + b]!;
      }
    }
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
    if (!Number.isFinite(features[i])) throw new ArgumentError(`${argument}: row ${Math.floor(i / dimension)}, column ${i % dimension}`, features[i], 'a finite number; the images or the feature network are broken');
  }
  return features.length / dimension;
}

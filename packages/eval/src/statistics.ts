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
 * Mean and covariance of features that come in a stream, accumulated in float64. Accumulators of parts can be merged,
 * which gives what one pass over everything gives.
 */
export class FeatureStatistics {
  #count = 0;
  readonly #sum: Float64Array;
  /** Σ (x − shift)(x − shift)ᵀ, upper triangle; the shift is the first row, so that nothing large cancels. */
  readonly #products: Float64Array;
  #shift: Float64Array | undefined;

  constructor(readonly dimension: number) {
    if (!Number.isInteger(dimension) || dimension < 1) throw new ArgumentError('FeatureStatistics: dimension', dimension, 'a positive integer');
    this.#sum = new Float64Array(dimension);
    this.#products = new Float64Array(dimension * dimension);
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
    if (features.length % d !== 0) throw new ArgumentError('FeatureStatistics.add: features', features.length, `a multiple of the ${d} values of a row`);
    checkFinite('FeatureStatistics.add: features', features, d);
    const rows = features.length / d;
    if (rows === 0) return;
    this.#shift ??= Float64Array.from({ length: d }, (_, j) => features[j]!);
    const centred = new Float64Array(d);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < d; j++) {
        centred[j] = features[i * d + j]! - this.#shift[j]!;
        this.#sum[j]! += centred[j]!;
      }
      for (let a = 0; a < d; a++) {
        const factor = centred[a]!;
        const row = a * d;
        for (let b = a; b < d; b++) this.#products[row + b]! += factor * centred[b]!;
      }
    }
    this.#count += rows;
  }

  /** Takes in what another accumulator has. */
  merge(other: FeatureStatistics): void {
    if (other.dimension !== this.dimension) throw new ArgumentError('FeatureStatistics.merge: dimension', other.dimension, String(this.dimension));
    if (other.#count === 0) return;
    this.#shift ??= other.#shift!.slice();
    const d = this.dimension;
    // Σ(x − s)(x − s)ᵀ from Σ(x − r)(x − r)ᵀ with δ = r − s: + δ·Σᵀ + Σ·δᵀ + n·δδᵀ
    const delta = Float64Array.from({ length: d }, (_, j) => other.#shift![j]! - this.#shift![j]!);
    for (let a = 0; a < d; a++) {
      for (let b = a; b < d; b++) {
        this.#products[a * d + b]! += other.#products[a * d + b]! + delta[a]! * other.#sum[b]! + other.#sum[a]! * delta[b]! + other.#count * delta[a]! * delta[b]!;
      }
    }
    for (let j = 0; j < d; j++) this.#sum[j]! += other.#sum[j]! + other.#count * delta[j]!;
    this.#count += other.#count;
  }

  /** @throws ArgumentError where fewer than two rows came: there is no covariance */
  finish(): Statistics {
    const [n, d] = [this.#count, this.dimension];
    if (n < 2) throw new ArgumentError('FeatureStatistics: rows', n, 'at least 2: one image has no covariance');
    const offset = this.#sum.map((s) => s / n);
    const covariance = new Float64Array(d * d);
    for (let a = 0; a < d; a++) {
      for (let b = a; b < d; b++) {
        const value = (this.#products[a * d + b]! - n * offset[a]! * offset[b]!) / (n - 1);
        covariance[a * d + b] = value;
        covariance[b * d + a] = value;
      }
    }
    return { count: n, dimension: d, mean: offset.map((o, j) => o + this.#shift![j]!), covariance };
  }
}

/** @throws ArgumentError that names the first value that is not finite */
export function checkFinite(argument: string, features: ArrayLike<number>, dimension: number): void {
  for (let i = 0; i < features.length; i++) {
    if (!Number.isFinite(features[i])) throw new ArgumentError(`${argument}: row ${Math.floor(i / dimension)}, column ${i % dimension}`, features[i], 'a finite number; the images or the feature network are broken');
  }
}

import type { LinearAlgebra } from './linear-algebra.js';

/** Features of a part of packed rows, as assembly/single.ts has them. */
const part = 256;
/** Rows of products that are held at a time, a multiple of a panel's 8. */
const strip = 64;

/** Rows of features, as they came and, centred, in float32 panels in the memory of a {@link LinearAlgebra}. */
export interface PointSet {
  readonly features: ArrayLike<number>;
  readonly count: number;
  readonly dimension: number;
  /** Address of the panels. */
  readonly at: number;
  readonly panels: number;
  /** Squared lengths of the centred, scaled rows. */
  readonly squares: Float64Array;
}

/** What both sets are shifted and scaled by before they are rounded to float32: neighbours stay, products become small. */
export interface Frame {
  readonly centre: Float64Array;
  /** A power of two. */
  readonly scale: number;
}

/** A frame with the mean of a set as its centre, in which no value of the sets is above 1. */
export function commonFrame(sets: readonly ArrayLike<number>[], dimension: number): Frame {
  const centre = new Float64Array(dimension);
  const first = sets[0]!;
  for (let i = 0; i < first.length; i++) centre[i % dimension]! += first[i]! / (first.length / dimension);
  let largest = 0;
  for (const features of sets) for (let i = 0; i < features.length; i++) largest = Math.max(largest, Math.abs(features[i]! - centre[i % dimension]!));
  // far smaller or larger values have squares that float64 does not hold
  const exponent = largest === 0 ? 0 : Math.max(-500, Math.min(500, Math.ceil(Math.log2(largest))));
  return { centre, scale: 2 ** -exponent };
}

/** Packs rows for {@link eachRow}. */
export function packPoints(algebra: LinearAlgebra, features: ArrayLike<number>, { centre, scale }: Frame): PointSet {
  const dimension = centre.length;
  const count = features.length / dimension;
  const panels = Math.ceil(count / 8);
  const at = algebra.allocate(4 * 8 * panels * dimension);
  const packed = algebra.singles(at, 8 * panels * dimension).fill(0);
  const squares = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let from = 0; from < dimension; from += part) {
      const length = Math.min(part, dimension - from);
      let to = 8 * (from * panels + (i >> 3) * length) + (i & 7);
      for (let k = from; k < from + length; k++, to += 8) {
        const value = (features[i * dimension + k]! - centre[k]!) * scale;
        sum += value * value;
        packed[to] = value;
      }
    }
    squares[i] = sum;
  }
  return { features, count, dimension, at, panels, squares };
}

/** Squared distances of a row to those of another set: bounds at once, exactly where it is asked for. */
export interface DistanceRow {
  /** Nothing is nearer than this: the distance from float32 products less all that their rounding can make. */
  atLeast(j: number): number;
  /** Nothing is farther. */
  atMost(j: number): number;
  /** Σ (x − y)², in float64 and in the order of the features. */
  exact(j: number): number;
}

/**
 * Calls `visit` with every row of `a` and its distances to the rows of `b`, with `symmetric` (and a = b) only to those
 * after it.
 */
export async function eachRow(algebra: LinearAlgebra, a: PointSet, b: PointSet, { scale }: Frame, symmetric: boolean, visit: (i: number, row: DistanceRow) => Promise<void>): Promise<void> {
  const { dimension: d } = a;
  const ld = 8 * b.panels;
  const out = algebra.allocate(4 * strip * ld);
  const [lengthsA, lengthsB] = [a.squares.map(Math.sqrt), b.squares.map(Math.sqrt)];
  // a product of float32 rows is off by 2⁻²⁴ of |x|·|y| for each value's rounding, each of a part's sums, and each part
  const share = 2 * (part + Math.ceil(d / part) + 4) * 2 ** -24;
  // the same of float64, in squares and in exact distances; and what vanishes below float32's smallest value
  const rounding = 4 * (d + 8) * 2 ** -52;
  const vanished = d * 1e-40;
  const unit = 1 / scale / scale;
  for (let first = 0; first < a.count; first += strip) {
    const last = Math.min(a.count, first + strip);
    algebra.exports.singleProducts(a.at, a.panels, first / 8, Math.ceil(last / 8), b.at, b.panels, symmetric ? first / 8 : 0, b.panels, d, out, ld);
    const products = algebra.singles(out, strip * ld);
    for (let i = first; i < last; i++) {
      const from = (i - first) * ld;
      const [square, length] = [a.squares[i]!, lengthsA[i]!];
      const middle = (j: number) => square + b.squares[j]! - 2 * products[from + j]!;
      const slack = (j: number) => share * length * lengthsB[j]! + rounding * (square + b.squares[j]!) + vanished;
      await visit(i, {
        atLeast: (j) => (middle(j) - slack(j)) * unit,
        atMost: (j) => (middle(j) + slack(j)) * unit,
        exact: (j) => squaredDistance(a.features, i * d, b.features, j * d, d),
      });
    }
  }
}

function squaredDistance(a: ArrayLike<number>, p: number, b: ArrayLike<number>, q: number, d: number): number {
  let sum = 0;
  for (let k = 0; k < d; k++) {
    const difference = a[p + k]! - b[q + k]!;
    sum += difference * difference;
  }
  return sum;
}

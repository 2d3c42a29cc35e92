import { type LinearAlgebra, leadingDimension, withLinearAlgebra } from './linear-algebra.js';

/** Diagonals of the band on the way to two: wide enough for products to be fast, narrow enough for what comes after them. */
const band = 32;

/**
 * Singular values of a matrix in float64, with errors of about 1e-15 of the largest: blocked reflections to a band, from
 * there to two diagonals, and Golub & Kahan's iteration (1965).
 *
 * @param matrix `[rows, columns]`, row by row
 * @returns min(rows, columns) values, in no order
 */
export function singularValues(matrix: Float64Array, rows: number, columns: number): Float64Array {
  if (rows < columns) return singularValues(transposed(matrix, rows, columns), columns, rows);
  return withLinearAlgebra((algebra) => {
    const ld = leadingDimension(columns);
    return singularValuesAt(algebra, algebra.putMatrix(matrix, rows, columns, ld), rows, columns, ld);
  });
}

/** {@link singularValues} of a matrix in the memory, of at least as many rows as columns; it is overwritten. */
export function singularValuesAt(algebra: LinearAlgebra, at: number, rows: number, columns: number, ld: number): Float64Array {
  const { exports } = algebra;
  const scale = normalise(algebra.doubles(at, rows * ld), rows, columns, ld);
  if (scale === 0) return new Float64Array(columns);
  const [v, y, w] = [0, 1, 2].map(() => algebra.allocateDoubles(rows * band)) as [number, number, number];
  const t = algebra.allocateDoubles(2 * band * (band + 1));
  exports.reduceToBand(at, rows, columns, ld, band, v, y, w, t, algebra.scratch);

  const bandLd = 3 * band;
  const size = columns * (bandLd + 1);
  const start = algebra.allocateDoubles(size);
  const [diagonal, above, room] = [columns, columns, 3 * band + 1].map((count) => algebra.allocateDoubles(count)) as [number, number, number];
  const from = algebra.doubles(at, rows * ld);
  const to = algebra.doubles(start, size).fill(0);
  for (let i = 0; i < columns; i++) to.set(from.subarray(i * ld + i, i * ld + Math.min(columns, i + band + 1)), band + i * (bandLd + 1));
  exports.bandToBidiagonal(start + 8 * band, columns, band, bandLd, diagonal, above, room);
  if (exports.bidiagonalValues(diagonal, above, columns) === 0) throw new Error('internal error, please report: the singular values of a matrix did not converge');
  return algebra.doubles(diagonal, columns).map((value) => value * scale);
}

/** Divides by a power of two, so that the largest value is from 1 to 2: squares neither overflow nor vanish. @returns that power */
function normalise(values: Float64Array, rows: number, columns: number, ld: number): number {
  let largest = 0;
  for (let i = 0; i < rows; i++) for (let j = i * ld; j < i * ld + columns; j++) largest = Math.max(largest, Math.abs(values[j]!));
  if (largest === 0) return 0;
  // up to 2^1022: dividing by a power whose reciprocal is subnormal would lose bits
  const scale = 2 ** Math.max(-1022, Math.min(1022, Math.floor(Math.log2(largest))));
  if (scale !== 1) for (let i = 0; i < rows; i++) for (let j = i * ld; j < i * ld + columns; j++) values[j]! /= scale;
  return scale;
}

function transposed(a: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(a.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j]!;
  return out;
}

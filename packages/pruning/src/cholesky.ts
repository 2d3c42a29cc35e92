import { ArgumentError } from '@tinyfusion/core';

/**
 * The lower Cholesky factor of a symmetric positive definite matrix, A = L Lᵀ, in float64.
 * @param a `[n, n]` row by row; its lower triangle is read
 * @returns `[n, n]` row by row, zeros above the diagonal; nothing where a pivot is not positive
 */
export function cholesky(a: Float64Array, n: number): Float64Array<ArrayBuffer> | undefined {
  if (a.length !== n * n) throw new ArgumentError('cholesky: a', a.length, `${n}² values`);
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    const row = i * n;
    for (let j = 0; j <= i; j++) {
      const other = j * n;
      let sum = a[row + j]!;
      for (let k = 0; k < j; k++) sum -= l[row + k]! * l[other + k]!;
      if (j < i) l[row + j] = sum / l[other + j]!;
      else if (sum > 0) l[row + i] = Math.sqrt(sum);
      else return undefined;
    }
  }
  return l;
}

/**
 * Solves L Lᵀ X = B.
 * @param l from {@link cholesky}
 * @param b `[n, columns]` row by row
 * @returns `[n, columns]`
 */
export function choleskySolve(l: Float64Array, b: Float64Array, n: number, columns: number): Float64Array<ArrayBuffer> {
  if (l.length !== n * n || b.length !== n * columns) throw new ArgumentError('choleskySolve: sizes', [l.length, b.length], `${n}² and ${n} × ${columns} values`);
  const x = Float64Array.from(b);
  const addRow = (to: number, from: number, factor: number): void => {
    for (let c = 0; c < columns; c++) x[to * columns + c]! += factor * x[from * columns + c]!;
  };
  const scaleRow = (row: number, factor: number): void => {
    for (let c = 0; c < columns; c++) x[row * columns + c]! *= factor;
  };
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) addRow(i, k, -l[i * n + k]!);
    scaleRow(i, 1 / l[i * n + i]!);
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) addRow(i, k, -l[k * n + i]!);
    scaleRow(i, 1 / l[i * n + i]!);
  }
  return x;
}

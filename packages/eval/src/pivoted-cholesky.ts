/** A factor of a positive semidefinite matrix: S = L·Lᵀ up to rounding. */
export interface CholeskyFactor {
  /** L, [D, rank], row by row. */
  readonly factor: Float64Array;
  readonly rank: number;
  /** Largest entry of S − L·Lᵀ that was left over, as a share of S's largest variance; about 1e-15 for a covariance. */
  readonly residual: number;
}

/**
 * Cholesky's factorisation with the largest remaining variance as the pivot, ended where that is below rounding
 * (D·2⁻⁵² of the largest): a singular covariance gets a factor of its rank, without square roots of noise.
 *
 * @param matrix symmetric, D × D
 */
export function pivotedCholesky(matrix: Float64Array, dimension: number): CholeskyFactor {
  const d = dimension;
  const rest = matrix.slice();
  const columns: Float64Array[] = [];
  let largest = 0;
  for (let i = 0; i < d; i++) largest = Math.max(largest, matrix[i * d + i]!);
  const open = Array.from({ length: d }, (_, i) => i);
  while (open.length > 0) {
    let at = 0;
    for (let i = 1; i < open.length; i++) if (rest[open[i]! * (d + 1)]! > rest[open[at]! * (d + 1)]!) at = i;
    const pivot = open[at]!;
    const variance = rest[pivot * (d + 1)]!;
    if (!(variance > d * Number.EPSILON * largest)) break;
    open.splice(at, 1);
    const column = new Float64Array(d);
    const root = Math.sqrt(variance);
    column[pivot] = root;
    for (const i of open) column[i] = rest[pivot * d + i]! / root;
    for (const i of open) {
      const factor = column[i]!;
      if (factor !== 0) for (let j = 0, row = i * d; j < d; j++) rest[row + j]! -= factor * column[j]!;
    }
    columns.push(column);
  }
  let left = 0;
  for (const i of open) for (const j of open) left = Math.max(left, Math.abs(rest[i * d + j]!));
  const factor = new Float64Array(d * columns.length);
  for (const [k, column] of columns.entries()) for (let i = 0; i < d; i++) factor[i * columns.length + k] = column[i]!;
  return { factor, rank: columns.length, residual: left === 0 ? 0 : left / largest };
}

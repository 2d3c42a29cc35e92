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
  // L row by row with room for every column; only the remaining variances are updated, and columns computed in turn
  const rows = new Float64Array(d * d);
  const variances = Float64Array.from({ length: d }, (_, i) => matrix[i * (d + 1)]!);
  const largest = variances.reduce((a, b) => Math.max(a, b), 0);
  const open = Array.from({ length: d }, (_, i) => i);
  let rank = 0;
  while (open.length > 0) {
    let at = 0;
    for (let i = 1; i < open.length; i++) if (variances[open[i]!]! > variances[open[at]!]!) at = i;
    const pivot = open[at]!;
    const variance = variances[pivot]!;
    if (!(variance > d * Number.EPSILON * largest)) break;
    open.splice(at, 1);
    const root = Math.sqrt(variance);
    rows[pivot * d + rank] = root;
    for (const i of open) {
      const value = (matrix[pivot * d + i]! - dot(rows, i * d, pivot * d, rank)) / root;
      rows[i * d + rank] = value;
      variances[i]! -= value * value;
    }
    rank++;
  }
  let left = 0;
  for (const i of open) for (const j of open) left = Math.max(left, Math.abs(matrix[i * d + j]! - dot(rows, i * d, j * d, rank)));
  const factor = new Float64Array(d * rank);
  for (let i = 0; i < d; i++) factor.set(rows.subarray(i * d, i * d + rank), i * rank);
  return { factor, rank, residual: left === 0 ? 0 : left / largest };
}

/** Product of two runs of the same array. */
function dot(values: Float64Array, p: number, q: number, length: number): number {
  let [a, b, c, e] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 4 <= length; i += 4) {
    a += values[p + i]! * values[q + i]!;
    b += values[p + i + 1]! * values[q + i + 1]!;
    c += values[p + i + 2]! * values[q + i + 2]!;
    e += values[p + i + 3]! * values[q + i + 3]!;
  }
  for (; i < length; i++) a += values[p + i]! * values[q + i]!;
  return a + b + (c + e);
}

import { type LinearAlgebra, leadingDimension } from './linear-algebra.js';

/** A factor of a positive semidefinite matrix in the memory of a {@link LinearAlgebra}: row order[i] of S = L·Lᵀ has row i of L. */
export interface CholeskyFactor {
  /** Address of L, [D, rank], lower triangular; what lies above its diagonal is not zeros. */
  readonly at: number;
  /** Distance of L's rows, in values. */
  readonly ld: number;
  /** Address of D int32 values: which row of S each row of L is. */
  readonly order: number;
  readonly rank: number;
  /** Largest entry of S − L·Lᵀ that was left over, as a share of S's largest variance; about 1e-15 for a covariance. */
  readonly residual: number;
}

/**
 * Cholesky's factorisation with the largest remaining variance as the pivot, ended where that is below rounding
 * (D·2⁻⁵² of the largest): a singular covariance gets a factor of its rank, without square roots of noise. In blocks, as
 * LAPACK's dpstrf (Hammarling, Higham & Lucas 2007).
 *
 * @param matrix symmetric, D × D
 */
export function pivotedCholesky(algebra: LinearAlgebra, matrix: Float64Array, dimension: number): CholeskyFactor {
  const d = dimension;
  const ld = leadingDimension(d);
  const at = algebra.putMatrix(matrix, d, d, ld);
  const [order, variances] = [algebra.allocate(4 * d), algebra.allocateDoubles(d)];
  let largest = 0;
  for (let i = 0; i < d; i++) largest = Math.max(largest, matrix[i * (d + 1)]!);
  const rank = algebra.exports.pivotedCholesky(at, ld, d, d * Number.EPSILON * largest, order, variances, algebra.scratch);
  const left = algebra.exports.largestLeft(at, ld, d, rank);
  return { at, ld, order, rank, residual: left === 0 ? 0 : left / largest };
}

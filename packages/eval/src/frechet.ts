import { ArgumentError } from '@tinyfusion/core';
import { EigenvalueDecomposition, Matrix } from 'ml-matrix';
import type { Statistics } from './statistics.js';

/** A Fréchet distance and what it is made of. */
export interface FrechetDistance {
  /** ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr √(Σ₁Σ₂). */
  distance: number;
  /** ‖μ₁ − μ₂‖². */
  meanTerm: number;
  /** The rest. */
  covarianceTerm: number;
  /** What a reader should know: covariances that have not full rank. */
  warnings: string[];
}

/**
 * Squared Fréchet distance of two Gaussians (Heusel et al. 2017): FID on Inception's features, sFID on spatial ones. The
 * trace of √(Σ₁Σ₂) is that of √(√Σ₁ Σ₂ √Σ₁), which is symmetric, so that its eigenvalues are real and those that
 * rounding made negative are zero.
 */
export function frechetDistance(a: Statistics, b: Statistics): FrechetDistance {
  if (a.dimension !== b.dimension) throw new ArgumentError('frechetDistance: dimensions', [a.dimension, b.dimension], 'equal; statistics of one feature network');
  const d = a.dimension;
  const root = squareRoot(a.covariance, d);
  const other = Matrix.from1DArray(d, d, b.covariance);
  const product = root.mmul(other).mmul(root);
  const eigenvalues = new EigenvalueDecomposition(symmetric(product), { assumeSymmetric: true }).realEigenvalues;
  const traceOfRoot = eigenvalues.reduce((sum, value) => sum + Math.sqrt(Math.max(0, value)), 0);
  let meanTerm = 0;
  for (let i = 0; i < d; i++) meanTerm += (a.mean[i]! - b.mean[i]!) ** 2;
  const covarianceTerm = trace(a.covariance, d) + trace(b.covariance, d) - 2 * traceOfRoot;
  const warnings = [a, b].filter((s) => s.count <= d).map((s) => `${s.count} samples for ${d} dimensions: the covariance is singular and the distance biased; use more than ${d}, better ten times as many`);
  return { distance: meanTerm + covarianceTerm, meanTerm, covarianceTerm, warnings };
}

function squareRoot(covariance: Float64Array, d: number): Matrix {
  const { realEigenvalues, eigenvectorMatrix } = new EigenvalueDecomposition(Matrix.from1DArray(d, d, covariance), { assumeSymmetric: true });
  const scaled = eigenvectorMatrix.clone();
  for (let j = 0; j < d; j++) scaled.mulColumn(j, Math.sqrt(Math.max(0, realEigenvalues[j]!)));
  return scaled.mmul(eigenvectorMatrix.transpose());
}

/** (M + Mᵀ)/2: rounding made it a little asymmetric. */
function symmetric(matrix: Matrix): Matrix {
  return Matrix.add(matrix, matrix.transpose()).mul(0.5);
}

function trace(matrix: Float64Array, d: number): number {
  let sum = 0;
  for (let i = 0; i < d; i++) sum += matrix[i * d + i]!;
  return sum;
}

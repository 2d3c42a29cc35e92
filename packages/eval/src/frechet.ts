import { ArgumentError } from '@tinyfusion/core';
import { type LinearAlgebra, leadingDimension, withLinearAlgebra } from './linear-algebra.js';
import { type CholeskyFactor, pivotedCholesky } from './pivoted-cholesky.js';
import { singularValuesAt } from './singular-values.js';
import type { Statistics } from './statistics.js';

/** A Fréchet distance and what it is made of; plain JSON. */
export interface FrechetDistance {
  /** ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr √(Σ₁Σ₂); of equal statistics 0 up to rounding, which may be below 0. */
  distance: number;
  /** ‖μ₁ − μ₂‖². */
  meanTerm: number;
  /** tr Σ₁ + tr Σ₂ − 2 tr √(Σ₁Σ₂). */
  covarianceTerm: number;
  /** Numerical ranks of Σ₁ and Σ₂: at most D, and at most one less than the samples. */
  ranks: [number, number];
  /** What factoring Σ₁ and Σ₂ left over, as shares of their largest variance; about 1e-15 for true covariances. */
  residuals: [number, number];
  /** What a reader should know: too few samples, features that never change. */
  warnings: string[];
}

/**
 * Squared Fréchet distance of two Gaussians (Dowson & Landau 1982; as FID, Heusel et al. 2017): FID on Inception's
 * features, sFID on spatial ones. With Σ = L·Lᵀ, the trace of √(Σ₁Σ₂) is the sum of the singular values of L₁ᵀL₂. Those
 * come with an error of 1e-15 of the largest one. Eigenvalues of √Σ₁ Σ₂ √Σ₁ would have that error before their root is
 * taken, which makes 1e-8 of it wherever a covariance is singular.
 *
 * @throws ArgumentError where the dimensions differ, a value is not finite, or a matrix is no covariance
 */
export function frechetDistance(a: Statistics, b: Statistics): FrechetDistance {
  if (a.dimension !== b.dimension) throw new ArgumentError('frechetDistance: dimensions', [a.dimension, b.dimension], 'equal; both must be statistics of one feature network');
  for (const [which, statistics] of [['first', a], ['second', b]] as const) checkStatistics(`frechetDistance: ${which} statistics`, statistics);
  const [traceOfRoot, ...factors] = withLinearAlgebra((algebra) => {
    const [first, second] = [factorOf(algebra, 'first', a), factorOf(algebra, 'second', b)];
    return [traceOfFactors(algebra, first, second, a.dimension), first, second] as const;
  });
  let meanTerm = 0;
  for (let i = 0; i < a.dimension; i++) meanTerm += (a.mean[i]! - b.mean[i]!) ** 2;
  const covarianceTerm = trace(a) + trace(b) - 2 * traceOfRoot;
  const warnings = [...new Set([...warningsOf(a), ...warningsOf(b)])];
  const [{ rank, residual }, other] = factors;
  return { distance: meanTerm + covarianceTerm, meanTerm, covarianceTerm, ranks: [rank, other.rank], residuals: [residual, other.residual], warnings };
}

/** Far above what rounding leaves of a covariance, even of one kept in float32. */
const largestResidual = 1e-4;

function checkStatistics(name: string, { dimension: d, mean, covariance }: Statistics): void {
  if (mean.length !== d || covariance.length !== d * d) throw new ArgumentError(`${name}: lengths of mean and covariance`, [mean.length, covariance.length], `[${d}, ${d * d}]`);
  for (const values of [mean, covariance]) {
    const at = values.findIndex((v) => !Number.isFinite(v));
    if (at >= 0) throw new ArgumentError(`${name}: ${values === mean ? 'mean' : 'covariance'}, value ${at}`, values[at], 'a finite number');
  }
}

function factorOf(algebra: LinearAlgebra, which: string, { dimension, covariance }: Statistics): CholeskyFactor {
  const factor = pivotedCholesky(algebra, covariance, dimension);
  if (factor.residual > largestResidual) throw new ArgumentError(`frechetDistance: ${which} statistics: what its covariance has beyond a positive semidefinite matrix`, factor.residual, `at most ${largestResidual} of the largest variance; this matrix is not a covariance`);
  return factor;
}

/** Sum of the singular values of L₁ᵀL₂. L₁'s memory is changed. */
function traceOfFactors(algebra: LinearAlgebra, a: CholeskyFactor, b: CholeskyFactor, d: number): number {
  if (a.rank === 0 || b.rank === 0) return 0;
  // singularValuesAt takes matrices that are not wider than tall
  const [tall, flat] = a.rank >= b.rank ? [a, b] : [b, a];
  const ld = leadingDimension(flat.rank);
  const [rows, places, product] = [algebra.allocateDoubles(d * flat.ld), algebra.allocate(4 * d), algebra.allocateDoubles(tall.rank * ld)];
  algebra.exports.factorProduct(tall.at, tall.ld, tall.rank, tall.order, flat.at, flat.ld, flat.rank, flat.order, d, rows, places, product, ld, algebra.scratch);
  return singularValuesAt(algebra, product, tall.rank, flat.rank, ld).reduce((sum, value) => sum + value, 0);
}

function trace({ covariance, dimension: d }: Statistics): number {
  let sum = 0;
  for (let i = 0; i < d; i++) sum += covariance[i * (d + 1)]!;
  return sum;
}

function warningsOf({ count, dimension: d, mean, covariance }: Statistics): string[] {
  const warnings: string[] = [];
  if (count <= d) warnings.push(`${count} samples for ${d} dimensions: the covariance is singular and the distance biased; use more than ${d}, better ten times as many`);
  // float32 features that vary at all vary by 6e-8 of themselves; a mean of equal ones rounds by 1e-16
  let constant = 0;
  for (let i = 0; i < d; i++) if (covariance[i * (d + 1)]! <= (1e-12 * mean[i]!) ** 2) constant++;
  if (constant > 0) warnings.push(`${constant} of ${d} features are the same for all ${count === Number.MAX_SAFE_INTEGER ? 'samples' : `of ${count} samples`} of a set: all images may be equal, or units of the feature network dead`);
  return warnings;
}

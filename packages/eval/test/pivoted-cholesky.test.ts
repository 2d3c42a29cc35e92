import { createRng } from '@tinyfusion/core';
import { CholeskyDecomposition, Matrix } from 'ml-matrix';
import { describe, expect, it } from 'vitest';
import { withLinearAlgebra } from '../src/linear-algebra.js';
import { pivotedCholesky } from '../src/pivoted-cholesky.js';

/** A random covariance of `samples` samples, scaled. */
function covarianceOf(d: number, samples: number, scale = 1): Float64Array {
  const rows = Matrix.from1DArray(samples, d, createRng(d + samples).normal(samples * d));
  return Float64Array.from(rows.transpose().mmul(rows).to1DArray(), (v) => (v / samples) * scale);
}

/** The factor's rows in the order of the matrix, with zeros above L's diagonal. */
function factored(matrix: Float64Array, d: number) {
  return withLinearAlgebra((algebra) => {
    const { at, ld, order, rank, residual } = pivotedCholesky(algebra, matrix, d);
    const places = [...algebra.integers(order, d)];
    const lower = Matrix.zeros(d, rank);
    const values = algebra.doubles(at, d * ld);
    for (let i = 0; i < d; i++) for (let j = 0; j <= Math.min(i, rank - 1); j++) lower.set(i, j, values[i * ld + j]!);
    const factor = Matrix.zeros(d, rank);
    for (const [i, place] of places.entries()) factor.setRow(place, lower.getRow(i));
    return { lower, factor, places, rank, residual };
  });
}

const furthest = (a: Matrix, b: ArrayLike<number>): number => a.to1DArray().reduce((most, v, i) => Math.max(most, Math.abs(v - b[i]!)), 0);

describe('pivotedCholesky', () => {
  it.each([1, 2, 3, 63, 64, 65, 130])('multiplies back to the matrix, D = %i', (d) => {
    const matrix = covarianceOf(d, 2 * d + 1);
    const { factor, lower, places, rank, residual } = factored(matrix, d);
    expect(rank).toBe(d);
    expect(residual).toBe(0);
    expect([...places].toSorted((a, b) => a - b)).toEqual(Array.from({ length: d }, (_, i) => i));
    expect(furthest(factor.mmul(factor.transpose()), matrix)).toBeLessThan(1e-14);
    // without the pivots' order it is the one factor there is
    const reference = new CholeskyDecomposition(Matrix.from1DArray(d, d, matrix).selection(places, places)).lowerTriangularMatrix;
    expect(furthest(lower, reference.to1DArray())).toBeLessThan(1e-13);
    // pivots fall
    for (let i = 1; i < d; i++) expect(lower.get(i, i)).toBeLessThanOrEqual(lower.get(i - 1, i - 1) * (1 + 1e-12));
  });

  it.each([[65, 20], [130, 64], [130, 70]])('ends at the rank of a singular matrix, D = %i, %i samples', (d, samples) => {
    const matrix = covarianceOf(d, samples);
    const { factor, rank, residual } = factored(matrix, d);
    expect(rank).toBe(samples);
    expect(residual).toBeGreaterThan(0);
    expect(residual).toBeLessThan(1e-13);
    expect(furthest(factor.mmul(factor.transpose()), matrix)).toBeLessThan(1e-13);
  });

  it('of zeros has rank 0, of an indefinite matrix a residual', () => {
    expect(factored(new Float64Array(16), 4)).toMatchObject({ rank: 0, residual: 0 });
    expect(factored(Float64Array.of(1, 2, 2, 1), 2)).toMatchObject({ rank: 1, residual: 3 });
    expect(factored(Float64Array.of(-1), 1)).toMatchObject({ rank: 0, residual: Infinity });
  });

  it.each([1e-290, 1e290])('scales with the matrix, by %d', (scale) => {
    const d = 70;
    const [plain, scaled] = [factored(covarianceOf(d, 90), d), factored(covarianceOf(d, 90, scale), d)];
    expect(scaled.rank).toBe(d);
    expect(scaled.places).toEqual(plain.places);
    expect(furthest(scaled.factor.div(Math.sqrt(scale)), plain.factor.to1DArray())).toBeLessThan(1e-12);
  });
});

import { ArgumentError, createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { frechetDistance } from '../src/index.js';
import { correlatedRows, given, statistics } from './gaussians.js';

describe('frechetDistance', () => {
  it('of Gaussians with diagonal covariances is ‖μ₁ − μ₂‖² + Σ(σ₁ − σ₂)²', () => {
    const { distance, meanTerm, covarianceTerm } = frechetDistance(given([1, 0, 2], [4, 0, 0, 0, 9, 0, 0, 0, 1]), given([0, 0, 4], [1, 0, 0, 0, 25, 0, 0, 0, 1]));
    expect(meanTerm).toBe(5);
    expect(covarianceTerm).toBeCloseTo(1 + 4, 12);
    expect(distance).toBeCloseTo(10, 12);
  });

  it('of covariances that do not commute agrees with the closed form of two dimensions', () => {
    // tr √M = √(tr M + 2 √det M) of a 2 × 2 product M = Σ₁Σ₂
    const [a, b] = [[2, 0.8, 0.8, 1], [1, -0.5, -0.5, 3]] as const;
    const traceOfProduct = a[0] * b[0] + a[1] * b[2] + a[2] * b[1] + a[3] * b[3];
    const determinant = (a[0] * a[3] - a[1] * a[2]) * (b[0] * b[3] - b[1] * b[2]);
    const expected = 2 + 1 + 1 + 3 - 2 * Math.sqrt(traceOfProduct + 2 * Math.sqrt(determinant));
    expect(frechetDistance(given([0, 0], [...a]), given([0, 0], [...b])).distance).toBeCloseTo(expected, 13);
  });

  it('of samples approaches the distance of their distributions', () => {
    const [count, d] = [20_000, 4];
    const rng = createRng(3);
    const a = statistics(rng.normal(count * d), d);
    const b = statistics(rng.normal(count * d).map((v) => 2 * v + 1), d);
    // the standard error of a mean is 0.016 and that of a deviation 0.01: (1 + 1)·d within five of them
    expect(Math.abs(frechetDistance(a, b).distance - 2 * d)).toBeLessThan(0.3);
  });

  it.each([
    ['full rank', 200, 24],
    ['fewer samples than dimensions', 10, 24],
    ['two samples', 2, 24],
  ])('is zero from a set to itself and symmetric, with %s', (_, count, d) => {
    const [a, b] = [statistics(correlatedRows(count, d, 4), d), statistics(correlatedRows(count, d, 5), d)];
    const { distance } = frechetDistance(a, b);
    expect(distance).toBeGreaterThan(0.01);
    // float64 rounding of traces of about 30
    expect(Math.abs(frechetDistance(a, a).distance)).toBeLessThan(1e-12);
    expect(Math.abs(frechetDistance(b, a).distance - distance)).toBeLessThan(1e-12);
  });

  it('does not change where all features turn by the same rotation', () => {
    const turned = (rows: Float32Array) => Float64Array.from(rows, (v, i) => (i % 2 === 0 ? 0.6 * v - 0.8 * rows[i + 1]! : 0.8 * rows[i - 1]! + 0.6 * v));
    const [a, b] = [correlatedRows(100, 6, 6), correlatedRows(100, 6, 7)];
    const plain = frechetDistance(statistics(a, 6), statistics(b, 6)).distance;
    expect(Math.abs(frechetDistance(statistics(turned(a), 6), statistics(turned(b), 6)).distance - plain)).toBeLessThan(1e-13);
  });

  it('reports ranks, and warns where samples are too few', () => {
    const [few, many] = [statistics(correlatedRows(6, 10, 8), 10), statistics(correlatedRows(60, 10, 9), 10)];
    const { ranks, residuals, warnings } = frechetDistance(few, many);
    expect(ranks).toEqual([5, 10]);
    expect(Math.max(...residuals)).toBeLessThan(1e-14);
    expect(warnings).toEqual(['6 samples for 10 dimensions: the covariance is singular and the distance biased; use more than 10, better ten times as many']);
    expect(frechetDistance(many, many).warnings).toEqual([]);
  });

  it('takes constant features, and says so', () => {
    const constant = statistics(new Float32Array(40).fill(0.1), 2);
    const { distance, ranks, warnings } = frechetDistance(constant, given([1, 1], [4, 0, 0, 9]));
    expect(distance).toBeCloseTo(2 * (1 - Math.fround(0.1)) ** 2 + 13, 12);
    expect(ranks[1]).toBe(2);
    expect(warnings).toEqual(['2 of 2 features are the same for all of 20 samples of a set: all images may be equal, or units of the feature network dead']);
    expect(frechetDistance(constant, constant).distance).toBe(0);
  });

  it('takes eigenvalues that rounding made negative, and no other', () => {
    // eigenvalues 2 and −1e-9
    expect(frechetDistance(given([0, 0], [1, 1 + 1e-9, 1 + 1e-9, 1]), given([0, 0], [1, 1, 1, 1])).distance).toBeCloseTo(0, 8);
    expect(() => frechetDistance(given([0, 0], [1, 0, 0, 1]), given([0, 0], [1, 2, 2, 1]))).toThrow('second statistics: what its covariance has beyond a positive semidefinite matrix is 3');
    expect(() => frechetDistance(given([0, 0], [1, 0, 0, -1]), given([0, 0], [1, 0, 0, 1]))).toThrow('first statistics');
    expect(() => frechetDistance(given([0], [-1]), given([0], [1]))).toThrow('first statistics');
  });

  it('refuses statistics of two networks, ragged ones and values that are not finite', () => {
    expect(() => frechetDistance(given([0], [1]), given([0, 0], [1, 0, 0, 1]))).toThrow('frechetDistance: dimensions is [1, 2], expected equal; both must be statistics of one feature network');
    expect(() => frechetDistance(given([0, 0], [1]), given([0, 0], [1, 0, 0, 1]))).toThrow(ArgumentError);
    expect(() => frechetDistance(given([0, 0], [1, 0, 0, 1]), given([0, 0], [1, 0, Number.NaN, 1]))).toThrow('second statistics: covariance, value 2 is NaN');
  });
});

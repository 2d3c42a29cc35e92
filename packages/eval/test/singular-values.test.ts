import { createRng } from '@tinyfusion/core';
import { Matrix, QrDecomposition, SingularValueDecomposition } from 'ml-matrix';
import { describe, expect, it } from 'vitest';
import { singularValues } from '../src/singular-values.js';

const descending = (values: Iterable<number>): number[] => [...values].toSorted((a, b) => b - a);

describe('singular values', () => {
  it.each([[1, 1], [2, 2], [3, 3], [1, 9], [9, 1], [60, 17], [17, 60], [63, 63], [64, 64], [65, 65], [130, 130], [130, 64], [33, 130]])('of a %i × %i matrix are those of another library', (rows, columns) => {
    const values = Float64Array.from(createRng(rows * 100 + columns).normal(rows * columns));
    const wanted = descending(new SingularValueDecomposition(Matrix.from1DArray(rows, columns, values), { autoTranspose: true }).diagonal);
    const got = descending(singularValues(values.slice(), rows, columns));
    expect(got.length).toBe(Math.min(rows, columns));
    for (const [i, v] of got.entries()) expect(Math.abs(v - wanted[i]!)).toBeLessThan(1e-13 * wanted[0]!);
  });

  it('of singular, zero and diagonal matrices are what they are', () => {
    const close = (got: Float64Array, wanted: number[]) => expect(descending(got)).toEqual(wanted.map((v) => expect.closeTo(v, 13)));
    close(singularValues(Float64Array.of(3, 0, 0, 0, -4, 0, 0, 0, 0), 3, 3), [4, 3, 0]);
    expect(descending(singularValues(new Float64Array(16), 4, 4))).toEqual([0, 0, 0, 0]);
    const [u, v] = [createRng(1).normal(30), createRng(2).normal(20)];
    const rankOne = Float64Array.from({ length: 600 }, (_, i) => u[Math.floor(i / 20)]! * v[i % 20]!);
    const [first, ...others] = descending(singularValues(rankOne, 30, 20));
    expect(first).toBeCloseTo(Math.hypot(...u) * Math.hypot(...v), 8);
    expect(Math.max(...others)).toBeLessThan(1e-14 * first!);
    // spread over twelve orders of magnitude, and equal ones
    const spread = Array.from({ length: 13 }, (_, i) => 10 ** -i);
    const diagonal = new Float64Array(169);
    for (const [i, s] of spread.entries()) diagonal[i * 14] = s;
    close(singularValues(diagonal, 13, 13), spread);
    const same = new Float64Array(64);
    for (let i = 0; i < 8; i++) same[i * 9] = 2;
    close(singularValues(same, 8, 8), [2, 2, 2, 2, 2, 2, 2, 2]);
  });

  it.each([65, 130])('of a product of few columns are those columns\', and zeros, n = %i', (n) => {
    const rank = 20;
    const [a, b] = [createRng(n).normal(n * rank), createRng(n + 1).normal(n * rank)].map((values) => Matrix.from1DArray(n, rank, values)) as [Matrix, Matrix];
    const product = a.mmul(b.transpose());
    const wanted = descending(new SingularValueDecomposition(product).diagonal);
    const got = descending(singularValues(Float64Array.from(product.to1DArray()), n, n));
    for (const [i, v] of got.entries()) expect(Math.abs(v - wanted[i]!)).toBeLessThan(1e-13 * wanted[0]!);
    expect(got[rank - 1]).toBeGreaterThan(0.1 * wanted[0]! / n);
    expect(got[rank]).toBeLessThan(1e-13 * wanted[0]!);
  });

  it.each([1e-300, 1e-160, 1e160, 1e300])('scale with the matrix, by %d', (scale) => {
    const values = Float64Array.from(createRng(7).normal(70 * 40), (v) => v / 100);
    const plain = descending(singularValues(values, 70, 40));
    for (const [i, v] of descending(singularValues(values.map((x) => x * scale), 70, 40)).entries()) expect(Math.abs(v / scale - plain[i]!)).toBeLessThan(1e-14 * plain[0]!);
  });

  it.each([1, 7, 80])('of a rotation of %i dimensions are ones', (n) => {
    const matrix = new QrDecomposition(Matrix.from1DArray(n, n, createRng(n).normal(n * n))).orthogonalMatrix;
    for (const v of singularValues(Float64Array.from(matrix.to1DArray()), n, n)) expect(Math.abs(v - 1)).toBeLessThan(1e-14);
  });

  it('are right where most of the matrix is too small to be squared', () => {
    // blocks that do not touch: [[3, 4], [0, 5]] has √45 and √5, the other 3·10⁻²⁰⁰ at most
    const n = 40;
    const matrix = new Float64Array(n * n).map((_, i) => (Math.floor(i / n) > 1 && i % n > 1 ? 1e-201 * ((i * 7919) % 13) : 0));
    [matrix[0], matrix[1], matrix[n + 1]] = [3, 4, 5];
    const [first, second, ...others] = descending(singularValues(matrix, n, n));
    expect(first).toBeCloseTo(Math.sqrt(45), 13);
    expect(second).toBeCloseTo(Math.sqrt(5), 13);
    expect(Math.max(...others)).toBeLessThan(1e-15);
  });
});

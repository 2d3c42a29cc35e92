import { createRng } from '@tinyfusion/core';
import { Matrix, SingularValueDecomposition } from 'ml-matrix';
import { describe, expect, it } from 'vitest';
import { singularValues } from '../src/singular-values.js';

const descending = (values: Iterable<number>): number[] => [...values].toSorted((a, b) => b - a);

describe('singular values', () => {
  it.each([[1, 1], [5, 5], [40, 40], [60, 17], [17, 60], [100, 100]])('of a %i × %i matrix are those of another library', (rows, columns) => {
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
});

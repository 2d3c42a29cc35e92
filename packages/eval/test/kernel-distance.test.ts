import { CancelledError, createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { kernelDistance } from '../src/index.js';
import { correlatedRows } from './gaussians.js';

const all = (count: number) => Int32Array.from({ length: count }, (_, i) => i);

describe('kernelDistance', () => {
  it('is the unbiased squared MMD by hand', async () => {
    // (xy + 1)³ of {1, 2} and {0, 3}: within 27 and 1, across (1 + 64 + 1 + 343)/4
    const { mean, std } = await kernelDistance([1, 2], [0, 3], { dimension: 1, indices: [{ generated: [0, 1], real: [0, 1] }] });
    expect(mean).toBe(27 + 1 - 2 * (409 / 4));
    expect(std).toBe(0);
  });

  it('is symmetric, does not depend on the order of rows, and repeats with its seed', async () => {
    const [a, b] = [correlatedRows(40, 3, 1), correlatedRows(40, 3, 2)];
    const options = { dimension: 3, indices: [{ generated: all(40), real: all(40) }] };
    const there = (await kernelDistance(a, b, options)).mean;
    expect(Math.abs(there)).toBeGreaterThan(1e-3);
    // rounding of kernels of about 2e4
    expect((await kernelDistance(b, a, options)).mean).toBeCloseTo(there, 9);
    expect((await kernelDistance(a, b, { dimension: 3, indices: [{ generated: all(40).toReversed(), real: all(40) }] })).mean).toBeCloseTo(there, 9);
    const drawn = () => kernelDistance(a, b, { dimension: 3, subsets: 4, subsetSize: 20, rng: createRng(3) });
    expect(await drawn()).toEqual(await drawn());
  });

  it('estimates Σ C(3, p)·(E xᵖ − E yᵖ)² without bias: 0 for equal distributions, 3.578 for N(0, 1) and N(½, 1)', async () => {
    // moments 1 to 3 of N(½, 1): 0.5, 1.25, 1.625
    const expected = 3 * 0.5 ** 2 + 3 * 0.25 ** 2 + 1.625 ** 2;
    const [subsets, size] = [40, 200];
    const rng = createRng(4);
    const rows = () => rng.normal(subsets * size);
    const disjoint = Array.from({ length: subsets }, (_, s) => all(size).map((i) => s * size + i));
    const indices = disjoint.map((own) => ({ generated: own, real: own }));
    const same = await kernelDistance(rows(), rows(), { dimension: 1, indices });
    const other = await kernelDistance(rows().map((v) => v + 0.5), rows(), { dimension: 1, indices });
    // four standard errors, which come out near 0.1 and 0.3
    const error = ({ std }: { std: number }) => (4 * std) / Math.sqrt(subsets);
    expect(Math.abs(same.mean)).toBeLessThan(error(same));
    expect(Math.abs(other.mean - expected)).toBeLessThan(error(other));
    expect(other.mean - error(other)).toBeGreaterThan(same.mean + error(same));
  });

  it('can be cancelled and reports each subset', async () => {
    const rows = correlatedRows(10, 2, 6);
    const steps: number[] = [];
    const controller = new AbortController();
    const run = kernelDistance(rows, rows, { dimension: 2, subsets: 5, subsetSize: 5, rng: createRng(0), signal: controller.signal, onProgress: ({ step }) => void (steps.push(step) === 2 && controller.abort()) });
    await expect(run).rejects.toThrow(CancelledError);
    expect(steps).toEqual([1, 2]);
  });

  it('refuses subsets that do not fit', async () => {
    const rows = correlatedRows(10, 2, 7);
    const rng = createRng(0);
    await expect(kernelDistance(rows, rows, { dimension: 2, subsetSize: 5 })).rejects.toThrow('KernelDistanceOptions.rng is missing, expected an Rng');
    await expect(kernelDistance(rows, rows, { dimension: 2, rng })).rejects.toThrow('subsetSize is 1000, expected an integer from 2 to the 10 rows of the smaller set');
    await expect(kernelDistance(rows, rows, { dimension: 2, rng, subsetSize: 5, subsets: 0 })).rejects.toThrow('subsets is 0');
    await expect(kernelDistance(rows, rows, { dimension: 2, indices: [] })).rejects.toThrow('at least one');
    await expect(kernelDistance(rows, rows, { dimension: 2, indices: [{ generated: [0, 1], real: [0, 10] }] })).rejects.toThrow('real rows of subset 0, place 1 is 10, expected a row from 0 to 9');
    await expect(kernelDistance(rows, rows, { dimension: 2, indices: [{ generated: [0], real: [0, 1] }] })).rejects.toThrow('generated rows of subset 0 is 1, expected at least 2');
    await expect(kernelDistance(rows.map(() => Number.NaN), rows, { dimension: 2, rng, subsetSize: 5 })).rejects.toThrow('kernelDistance: generated: row 0, column 0 is NaN');
  });
});

import { CancelledError, type ProgressEvent, createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { precisionRecall } from '../src/index.js';
import { correlatedRows } from './gaussians.js';

/** The definition, pair by pair, with sorting. */
function byDefinition(generated: Float32Array | Float64Array, real: Float32Array | Float64Array, d: number, k: number) {
  const rows = (set: Float32Array | Float64Array) => Array.from({ length: set.length / d }, (_, i) => [...set.subarray(i * d, (i + 1) * d)]);
  const distance = (a: number[], b: number[]) => a.reduce((sum, v, j) => sum + (v - b[j]!) ** 2, 0);
  const radius = (set: number[][]) => set.map((a) => set.map((b) => distance(a, b)).toSorted((x, y) => x - y)[k]!);
  const [g, r] = [rows(generated), rows(real)];
  const [gRadius, rRadius] = [radius(g), radius(r)];
  const share = (flags: boolean[]) => flags.filter(Boolean).length / flags.length;
  return {
    precision: share(g.map((a) => r.some((b, j) => distance(a, b) <= rRadius[j]!))),
    recall: share(r.map((b) => g.some((a, i) => distance(a, b) <= gRadius[i]!))),
    density: g.flatMap((a) => r.filter((b, j) => distance(a, b) <= rRadius[j]!)).length / (k * g.length),
    coverage: share(r.map((b, j) => g.some((a) => distance(a, b) <= rRadius[j]!))),
  };
}

describe('precisionRecall', () => {
  it.each([
    [60, 45, 3],
    [33, 70, 1],
    [41, 41, 5],
  ])('agrees with the definition, %i against %i, k = %i', async (n, m, neighbours) => {
    const d = 5;
    const [generated, real] = [correlatedRows(n, d, 1).map((v) => 0.5 * v + 2.4), correlatedRows(m, d, 2)];
    const expected = byDefinition(generated, real, d, neighbours);
    expect(expected.precision).not.toBe(expected.recall);
    expect(await precisionRecall(generated, real, { dimension: d, neighbours })).toEqual(expected);
  });

  it.each([
    ['in one cluster', (v: number) => v],
    ['far from the origin, with one set far from the other', (v: number, real: boolean) => v * 0.01 + (real ? 1000 : 1000.3)],
    ['on a lattice, with many equal distances', (v: number) => Math.round(v)],
    ['too small for float32', (v: number) => v * 1e-60],
  ])('decides as float64 does over more features than a part of a product has: %s', async (_, change) => {
    const [d, neighbours] = [300, 2];
    const generated = Float64Array.from(correlatedRows(90, d, 12), (v) => change(v, false));
    const real = Float64Array.from(correlatedRows(70, d, 13), (v) => change(v, true));
    // copies of real points lie on the borders of the balls that those span, exactly
    generated.set(real.subarray(0, 20 * d), 5 * d);
    const result = await precisionRecall(generated, real, { dimension: d, neighbours });
    expect(result).toEqual(byDefinition(generated, real, d, neighbours));
    expect(result.precision).toBeGreaterThanOrEqual(20 / 90);
  });

  it('is all 1 for equal sets, 0 for sets far apart', async () => {
    const rows = correlatedRows(30, 3, 3);
    expect(await precisionRecall(rows, rows, { dimension: 3 })).toMatchObject({ precision: 1, recall: 1, coverage: 1 });
    expect(await precisionRecall(rows, rows.map((v) => v + 1000), { dimension: 3 })).toEqual({ precision: 0, recall: 0, density: 0, coverage: 0 });
  });

  it('tells a lost mode (recall) from invented samples (precision)', async () => {
    const [near, far] = [correlatedRows(30, 3, 4), correlatedRows(30, 3, 5).map((v) => v + 1000)];
    const both = Float32Array.from([...near, ...far]);
    const lost = await precisionRecall(near, both, { dimension: 3 });
    expect(lost.precision).toBe(1);
    expect(lost.recall).toBe(0.5);
    const invented = await precisionRecall(both, near, { dimension: 3 });
    expect(invented.precision).toBe(0.5);
    expect(invented.recall).toBe(1);
  });

  it('counts the border in', async () => {
    // real balls reach 1 around 0, 1 and 2: the generated 3 lies on the last one's border, 4 lies outside
    const { precision, coverage } = await precisionRecall([3, 4, 8], [0, 1, 2], { dimension: 1, neighbours: 1 });
    expect(precision).toBe(1 / 3);
    expect(coverage).toBe(1 / 3);
  });

  it('does not depend on the order of rows', async () => {
    const d = 4;
    const [generated, real] = [correlatedRows(50, d, 6), correlatedRows(50, d, 7).map((v) => v + 0.5)];
    const shuffle = (rows: Float32Array, seed: number) => Float32Array.from(Array.from(createRng(seed).permutation(50), (i) => [...rows.subarray(i * d, (i + 1) * d)]).flat());
    expect(await precisionRecall(shuffle(generated, 8), shuffle(real, 9), { dimension: d })).toEqual(await precisionRecall(generated, real, { dimension: d }));
  });

  it('counts a doubled point as its own neighbour', async () => {
    // with k = 1 each of the doubled points has radius 0
    expect((await precisionRecall([0.1, 5, 9], [0, 0, 5, 5], { dimension: 1, neighbours: 1 })).precision).toBe(1 / 3);
  });

  it('reports progress to the end, and can be cancelled on the way', async () => {
    const rows = correlatedRows(100, 2, 10);
    const events: ProgressEvent[] = [];
    await precisionRecall(rows, rows, { dimension: 2, batch: 30, onProgress: (e) => events.push(e) });
    expect(events.map((e) => e.step)).toEqual([30, 60, 90, 120, 150, 180, 210, 240, 270, 299, 300]);
    expect(events.every((e) => e.total === 300)).toBe(true);
    const controller = new AbortController();
    await expect(precisionRecall(rows, rows, { dimension: 2, batch: 10, signal: controller.signal, onProgress: () => controller.abort() })).rejects.toThrow(CancelledError);
  });

  it('says which set is broken', async () => {
    const rows = correlatedRows(10, 2, 11);
    const broken = rows.slice();
    broken[5] = Number.NaN;
    await expect(precisionRecall(broken, rows, { dimension: 2 })).rejects.toThrow('precisionRecall: generated: row 2, column 1 is NaN');
    await expect(precisionRecall(rows, broken, { dimension: 2 })).rejects.toThrow('precisionRecall: real: row 2, column 1 is NaN');
    await expect(precisionRecall(rows, rows.subarray(0, 6), { dimension: 2 })).rejects.toThrow('precisionRecall: real: rows is 3, expected more than 3');
    await expect(precisionRecall(rows, rows, { dimension: 3 })).rejects.toThrow('a multiple of the 3 values of a row');
    await expect(precisionRecall(rows, rows, { dimension: 2, neighbours: 0 })).rejects.toThrow('neighbours is 0');
  });
});

import { ArgumentError, CancelledError, type ProgressEvent, createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { frechetDistance, frechetInfinity } from '../src/index.js';
import { given, statistics } from './gaussians.js';

const d = 20;
const identity = Array.from({ length: d * d }, (_, i) => (i % (d + 1) === 0 ? 1 : 0));
const truth = given(Array.from({ length: d }, () => 0), identity);

describe('frechetInfinity', () => {
  it('takes away the bias of few samples', async () => {
    // of the distribution itself: the distance is 0, and of 2,000 samples too large by about (d + d²/4)/N
    const results = await Promise.all([1, 2, 3, 4, 5, 6].map((seed) => frechetInfinity(createRng(seed).normal(2000 * d), truth, { rng: createRng(seed).split('subsets') })));
    const plain = [1, 2, 3, 4, 5, 6].map((seed) => frechetDistance(statistics(createRng(seed).normal(2000 * d), d), truth).distance);
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    expect(mean(plain)).toBeGreaterThan(0.04);
    expect(Math.abs(mean(results.map((r) => r.distance)))).toBeLessThan(0.1 * mean(plain));
    for (const { subsets, standardError, distance } of results) {
      expect(subsets.map(({ count }) => count)).toEqual([200, 400, 600, 800, 1000, 1200, 1400, 1600, 1800, 2000]);
      expect(standardError).toBeGreaterThan(0);
      expect(Math.abs(distance)).toBeLessThan(6 * standardError);
    }
  });

  it('ends with the distance of all rows, whatever their number', async () => {
    const rows = createRng(7).normal(997 * d).map((v) => 1.1 * v + 0.2);
    const { subsets, distance } = await frechetInfinity(rows, truth, { rng: createRng(8), parts: 4 });
    expect(subsets.at(-1)!.count).toBe(997);
    expect(subsets.at(-1)!.distance).toBeCloseTo(frechetDistance(statistics(rows, d), truth).distance, 11);
    // d·(0.2² + 0.1²) = 1
    expect(Math.abs(distance - 1)).toBeLessThan(0.15);
  });

  it('reports progress, can be cancelled, and refuses parts that are too small', async () => {
    const rows = createRng(9).normal(100 * d);
    const events: ProgressEvent[] = [];
    await frechetInfinity(rows, truth, { rng: createRng(10), parts: 3, onProgress: (e) => events.push(e) });
    expect(events.map((e) => e.step)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(events.every((e) => e.total === 6)).toBe(true);
    const controller = new AbortController();
    await expect(frechetInfinity(rows, truth, { rng: createRng(10), parts: 3, signal: controller.signal, onProgress: () => controller.abort() })).rejects.toThrow(CancelledError);
    await expect(frechetInfinity(rows, truth, { rng: createRng(10) })).rejects.toThrow('frechetInfinity: rows is 100, expected at least 210');
    await expect(frechetInfinity(rows, truth, {} as never)).rejects.toThrow(/rng is missing, expected a generator/);
    await expect(frechetInfinity(rows, truth, { rng: createRng(10), parts: 2 })).rejects.toThrow(ArgumentError);
  });
});

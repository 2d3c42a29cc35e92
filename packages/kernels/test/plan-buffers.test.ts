import { createRng } from '@tinyfusion/core';
import { expect, it } from 'vitest';
import { planBuffers } from '../src/webgpu/plan-buffers.js';

it('shares buffers among values that live at different times, and never among others', () => {
  expect(planBuffers([{ bytes: 8, first: 0, last: 1 }, { bytes: 4, first: 1, last: 2 }, { bytes: 8, first: 2, last: 3 }])).toEqual({ places: [0, 1, 0], sizes: [8, 4] });
  const rng = createRng(3);
  for (let round = 0; round < 20; round++) {
    const spans = Array.from({ length: 60 }, () => {
      const [bytes, first, length] = rng.integers(0, 100, 3);
      return { bytes: 4 + bytes!, first: first!, last: first! + Math.floor(length! / 8) };
    });
    const { places, sizes } = planBuffers(spans);
    expect(spans.filter(({ bytes }, i) => sizes[places[i]!]! < bytes)).toEqual([]);
    expect(spans.filter((a, i) => spans.some((b, j) => j < i && places[i] === places[j] && a.last >= b.first && b.last >= a.first))).toEqual([]);
    // no plan takes less than what lives at the busiest moment
    const busiest = Math.max(...Array.from({ length: 120 }, (_, t) => spans.reduce((sum, { bytes, first, last }) => sum + (first <= t && t <= last ? bytes : 0), 0)));
    const total = sizes.reduce((a, b) => a + b, 0);
    expect(total).toBeGreaterThanOrEqual(busiest);
    expect(total).toBeLessThan(1.6 * busiest);
  }
});

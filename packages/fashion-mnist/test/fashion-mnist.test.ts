import { expect, it } from 'vitest';
import { loadFashionMnist } from '../src/index.js';

it.each(['train', 'test'] as const)('unpacks the %s images', async (split) => {
  const data = await loadFashionMnist(split);
  expect(data.labels.length).toBe(10_000);
  expect(data.images.length).toBe(10_000 * 784);
  const counts = new Map<number, number>();
  for (const label of data.labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  expect([...counts.keys()].toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  // published mean of the training images: 0.2860 of the range
  const mean = data.images.reduce((a, b) => a + b, 0) / data.images.length / 255;
  expect(mean).toBeCloseTo(0.286, 2);
});

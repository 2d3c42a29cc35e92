import { gunzipSync } from 'node:zlib';
import { expect, it, vi } from 'vitest';
import { loadAsset, loadFashionMnist } from '../src/index.js';

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

it('takes what a browser has unpacked already, as Vite sends it', async () => {
  const unpacked = gunzipSync(await loadAsset('test.bin.gz'));
  vi.resetModules();
  vi.doMock('../src/assets.js', () => ({ loadAsset: async () => new Uint8Array(unpacked) }));
  const inBrowser = await import('../src/fashion-mnist.js');
  const [there, here] = [await inBrowser.loadFashionMnist('test'), await loadFashionMnist('test')];
  expect(there.labels).toEqual(here.labels);
  expect(Buffer.compare(there.images, here.images)).toBe(0);
  vi.doUnmock('../src/assets.js');
});

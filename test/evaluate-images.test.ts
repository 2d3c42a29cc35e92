// ADM's protocol on small sets, with formula weights in place of Inception's.
import { createRng } from '@tinyfusion/core';
import { Inception, inceptionShapes } from '@tinyfusion/eval';
import { useBackend } from '@tinyfusion/kernels';
import { evaluateImages, imageSet } from '@tinyfusion/recipes';
import { type WritableTensor, parseNpz, writeNpz } from '@tinyfusion/weights';
import { beforeAll, expect, it } from 'vitest';
import { formulaState } from './golden/formula-weights.js';

let net: Inception;
beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
  net = await Inception.load(formulaState(Object.fromEntries(inceptionShapes()), 2.8));
}, 60_000);

const bytes = (seed: number, count: number, bright: number): WritableTensor => ({ dtype: 'U8', shape: [count, 16, 16, 3], bytes: Uint8Array.from(createRng(seed).uniform(count * 768), (u) => u * bright) });
const set = async (arrays: Record<string, WritableTensor>, name: string) => imageSet(await parseNpz(await writeNpz(Object.entries(arrays))), name);

it('finds a set at no distance from itself, and another away from it', async () => {
  const reference = await set({ arr_0: bytes(1, 5, 256) }, 'reference.npz');
  const seen: string[] = [];
  const same = await evaluateImages(net, reference, await set({ arr_0: bytes(1, 5, 256), arr_1: { dtype: 'I64', shape: [5], bytes: new Uint8Array(40) } }, 'same.npz'), { batchSize: 3, onProgress: ({ task, step, total }) => seen.push(`${task} ${step}/${total}`) });
  expect(seen).toEqual(expect.arrayContaining(['features of reference.npz 3/5', 'features of same.npz 5/5']));
  expect(Math.abs(same.fid)).toBeLessThan(1e-6);
  expect(Math.abs(same.sfid)).toBeLessThan(1e-6);
  expect([same.precision, same.recall]).toEqual([1, 1]);
  expect(same.inceptionScore).toBeGreaterThanOrEqual(1);
  expect(same.warnings.join(' ')).toMatch(/5 samples for 2048 dimensions.*papers measure 50,000/);
  const other = await evaluateImages(net, reference, await set({ arr_0: bytes(2, 5, 60) }, 'dark.npz'));
  expect(other.fid).toBeGreaterThan(100 * Math.abs(same.fid));
  expect(other.precision).toBe(0);
}, 120_000);

it('says what an archive lacks', async () => {
  await expect(set({ images: bytes(1, 4, 1) }, 'x.npz')).rejects.toThrow(/x\.npz has no arr_0, where images are; it has: images/);
  await expect(set({ arr_0: { ...bytes(1, 4, 1), shape: [4, 3, 16, 16] } }, 'x.npz')).rejects.toThrow(/expected bytes of shape \[N, height, width, 3\]/);
  const two = { dtype: 'F64', shape: [2], bytes: new Uint8Array(16) } as const;
  await expect(set({ arr_0: bytes(1, 4, 1), mu: two, sigma: { ...two, shape: [1, 2] } }, 'x.npz')).rejects.toThrow(/mu and sigma are \[2\] and \[1, 2\], expected those of 2048 features/);
});

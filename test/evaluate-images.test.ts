// ADM's protocol on small sets, with formula weights in place of Inception's.
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@tinyfusion/core';
import { FeatureStatistics, Inception, inceptionShapes, readStatistics, statisticsTensors } from '@tinyfusion/eval';
import { useBackend } from '@tinyfusion/kernels';
import { type Reference, archiveSource, drawnSource, evaluateImages, setFeatures, setNetwork } from '@tinyfusion/recipes';
import { folderSource } from '@tinyfusion/recipes/node';
import { type WritableTensor, parseNpz, parseTorch, writeNpz, writeTorchArrays } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { encode } from 'fast-png';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { formulaState } from './golden/formula-weights.js';

let net: Inception;
beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
  net = await Inception.load(formulaState(Object.fromEntries(inceptionShapes()), 2.8));
}, 60_000);

const pixels = (seed: number, count: number, bright: number): Uint8Array => Uint8Array.from(createRng(seed).uniform(count * 768), (u) => u * bright);
const bytes = (seed: number, count: number, bright: number): WritableTensor => ({ dtype: 'U8', shape: [count, 16, 16, 3], bytes: pixels(seed, count, bright) });
const archive = async (arrays: Record<string, WritableTensor>, name: string) => archiveSource(await parseNpz(await writeNpz(Object.entries(arrays))), name);
const reference = async (arrays: Record<string, WritableTensor>, name: string): Promise<Reference> => ({ name, images: await archive(arrays, name) });

/** A folder of PNGs with the pixels of an archive. */
function folder(all: Uint8Array): string {
  const path = mkdtempSync(join(tmpdir(), 'images-'));
  for (let i = 0; i * 768 < all.length; i++) writeFileSync(join(path, `${i}.png`), encode({ width: 16, height: 16, channels: 3, data: all.slice(i * 768, (i + 1) * 768) }));
  return path;
}

describe('samples against a reference', () => {
  it('are at no distance from themselves, and others away', async () => {
    const real = await reference({ arr_0: bytes(1, 5, 256) }, 'reference.npz');
    const seen: string[] = [];
    const same = await evaluateImages(net, real, await archive({ arr_0: bytes(1, 5, 256), arr_1: { dtype: 'I64', shape: [5], bytes: new Uint8Array(40) } }, 'same.npz'), { batchSize: 3, onProgress: ({ task, step, total }) => seen.push(`${task} ${step}/${total}`) });
    expect(seen).toEqual(expect.arrayContaining(['features of reference.npz 3/5', 'features of same.npz 5/5']));
    expect(Math.abs(same.fid!)).toBeLessThan(1e-6);
    expect(Math.abs(same.sfid!)).toBeLessThan(1e-6);
    expect([same.precision, same.recall]).toEqual([1, 1]);
    expect(same.intervals!.precision[0]).toBeCloseTo(0.5655, 3); // Wilson: 5 of 5
    expect(same.inceptionScore).toBeGreaterThanOrEqual(1);
    expect(same.warnings.join(' ')).toMatch(/5 samples for 2048 dimensions.*papers measure 50,000.*16 × 16 are enlarged to 299/);
    const other = await evaluateImages(net, real, await archive({ arr_0: bytes(2, 5, 60) }, 'dark.npz'), { metrics: ['fid', 'pr', 'kid'] });
    expect(other.fid).toBeGreaterThan(100 * Math.abs(same.fid!));
    expect(other.precision).toBe(0);
    expect(other.kid).toBeGreaterThan(0);
    expect([other.sfid, other.inceptionScore]).toEqual([undefined, undefined]);
  }, 120_000);

  it('are the same numbers from an archive, a folder, and a model that draws them', async () => {
    const real = await reference({ arr_0: bytes(1, 5, 256) }, 'reference.npz');
    const [samples, all] = [bytes(3, 5, 128), pixels(3, 5, 128)];
    const options = { metrics: ['fid', 'is'], batchSize: 2 } as const;
    const numbers = async (source: Parameters<typeof evaluateImages>[2]) => {
      const { fid, inceptionScore } = await evaluateImages(net, real, source, options);
      return [fid, inceptionScore];
    };
    const expected = await numbers(await archive({ arr_0: samples }, 'samples.npz'));
    expect(await numbers(await folderSource(folder(all)))).toEqual(expected);
    async function* drawn(): AsyncGenerator<tf.Tensor4D> {
      for (const [from, to] of [[0, 3], [3, 5]] as const) yield tf.tidy(() => tf.sub(tf.div(tf.tensor4d(Float32Array.from(all.subarray(from * 768, to * 768)), [to - from, 16, 16, 3]), 127.5), 1) as tf.Tensor4D);
    }
    const before = tf.memory().numTensors;
    expect(await numbers(drawnSource('a model', 5, 16, drawn))).toEqual(expected);
    expect(tf.memory().numTensors).toBe(before);
  }, 120_000);

  it.each(['adm', 'pytorch-fid', 'torch-fidelity'] as const)('may be measured against statistics in the layout of %s, and parts of them add up', async (layout) => {
    const parts = [await archive({ arr_0: bytes(1, 3, 256) }, 'a.npz'), await archive({ arr_0: bytes(4, 4, 256) }, 'b.npz')];
    const [pooled, spatial] = [new FeatureStatistics(2048), new FeatureStatistics(2023)];
    for (const part of parts) {
      const set = await setFeatures(setNetwork(net), part);
      pooled.merge(set.pooled);
      spatial.merge(set.spatial!);
    }
    const tensors = statisticsTensors({ pooled: pooled.finish(), ...(layout === 'adm' ? { spatial: spatial.finish() } : {}) });
    const stored = await readStatistics(layout === 'torch-fidelity' ? await parseTorch(await writeTorchArrays(tensors)) : await parseNpz(await writeNpz(tensors)), 'stats.npz');
    const whole = new Uint8Array([...pixels(1, 3, 256), ...pixels(4, 4, 256)]);
    const samples = await archive({ arr_0: bytes(5, 5, 256) }, 'samples.npz');
    const options = { metrics: layout === 'adm' ? (['fid', 'sfid'] as const) : (['fid'] as const) };
    const against = await evaluateImages(net, { name: 'stats.npz', statistics: stored }, samples, options);
    const direct = await evaluateImages(net, await reference({ arr_0: { dtype: 'U8', shape: [7, 16, 16, 3], bytes: whole } }, 'whole.npz'), samples, options);
    expect(against.fid! / direct.fid!).toBeCloseTo(1, 6);
    if (layout === 'adm') expect(against.sfid! / direct.sfid!).toBeCloseTo(1, 6);
    await expect(evaluateImages(net, { name: 'stats.npz', statistics: stored }, samples, { metrics: ['pr'] })).rejects.toThrow('stats.npz has statistics alone, no images');
  }, 120_000);
});

describe('what cannot be measured is said', () => {
  it('of archives', async () => {
    await expect(archive({ images: bytes(1, 4, 1) }, 'x.npz')).rejects.toThrow(/x\.npz has no arr_0, where images are; it has: images/);
    await expect(archive({ arr_0: { ...bytes(1, 4, 1), shape: [4, 3, 16, 16] } }, 'x.npz')).rejects.toThrow(/expected bytes of shape \[N, height, width, 3\]; these have their channels before the rows/);
    await expect(archive({ arr_0: { dtype: 'F32', shape: [4, 2, 2, 3], bytes: new Uint8Array(192) } }, 'x.npz')).rejects.toThrow(/scale them to 0 … 255/);
    const one = await archive({ arr_0: bytes(1, 1, 256) }, 'one.npz');
    await expect(evaluateImages(net, { name: 'one', images: one }, one)).rejects.toThrow('images of one.npz is 1, expected at least 2');
    const two = { dtype: 'F64', shape: [2], bytes: new Uint8Array(16) } as const;
    await expect(readStatistics(await parseNpz(await writeNpz(Object.entries({ mu: two, sigma: { ...two, shape: [1, 2] } }))), 'x.npz')).rejects.toThrow(/x\.npz/);
  });

  it('of folders: broken files, sizes that differ, lossy formats', async () => {
    const path = folder(pixels(1, 4, 256));
    writeFileSync(join(path, '2.png'), 'not an image');
    const drain = async (source: Awaited<ReturnType<typeof folderSource>>) => {
      let count = 0;
      for await (const part of source.batches(2)) count += part.length / 768;
      return count;
    };
    await expect(folderSource(path).then(drain)).rejects.toThrow(/2\.png cannot be decoded/);
    const skipping = await folderSource(path, { skipBroken: true });
    expect(await drain(skipping)).toBe(3);
    expect(skipping.warnings.join(' ')).toMatch(/1 of 4 images cannot be decoded and are left out: 2\.png/);
    writeFileSync(join(path, '2.png'), encode({ width: 8, height: 16, channels: 3, data: new Uint8Array(384) }));
    await expect(folderSource(path).then(drain)).rejects.toThrow(/2\.png is 8 × 16, 0\.png is 16 × 16/);
    writeFileSync(join(path, '2.png'), await sharp(pixels(9, 1, 256), { raw: { width: 16, height: 16, channels: 3 } }).jpeg().toBuffer());
    const lossy = await folderSource(path);
    expect(await drain(lossy)).toBe(4);
    expect(lossy.warnings.join(' ')).toContain('jpeg images');
    const empty = mkdtempSync(join(tmpdir(), 'images-'));
    mkdirSync(join(empty, 'nothing'));
    await expect(folderSource(empty)).rejects.toThrow('has no images');
    // constant images: a documented number, no NaN
    const flat = await archive({ arr_0: { dtype: 'U8', shape: [4, 16, 16, 3], bytes: new Uint8Array(3072).fill(7) } }, 'flat.npz');
    const { fid, inceptionScore } = await evaluateImages(net, { name: 'flat', images: flat }, flat, { metrics: ['fid', 'is'] });
    expect(Math.abs(fid!)).toBeLessThan(1e-6);
    expect(inceptionScore).toBeCloseTo(1, 5);
  }, 120_000);
});

import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CheckpointError, createRng } from '@tinyfusion/core';
import { openImageFolder } from '@tinyfusion/data/node';
import { useBackend } from '@tinyfusion/kernels';
import { AutoencoderKL } from '@tinyfusion/models';
import { encodeFolder, openSampleSource } from '@tinyfusion/recipes/node';
import { encode } from 'fast-png';
import { afterAll, beforeAll, expect, it } from 'vitest';

const root = mkdtempSync(join(tmpdir(), 'encode-folder-'));
const image = (name: string, seed: number): void => writeFileSync(join(root, 'images', name), encode({ width: 8, height: 8, channels: 3, data: Uint8Array.from(createRng(seed).uniform(192), (u) => 256 * u) }));

beforeAll(() => useBackend({ prefer: 'wasm' }));
afterAll(() => rmSync(root, { recursive: true }));

it('a folder that is being encoded goes on where it was, and refuses other files, whose numbers would be others', async () => {
  for (const name of ['cat', 'dog']) mkdirSync(join(root, 'images', name), { recursive: true });
  for (const [i, name] of ['cat/a.png', 'cat/b.png', 'dog/c.png'].entries()) image(name, i);
  const vae = new AutoencoderKL({ inChannels: 3, channels: 8, channelMultipliers: [1, 1], numResBlocks: 1, latentChannels: 4, groups: 4, scalingFactor: 1 }, { init: createRng(2) });
  const run = async (out: string) => encodeFolder(await openImageFolder(join(root, 'images')), vae, join(root, out), { size: 8, rng: createRng(0), batchSize: 2 });
  const of = (out: string): Buffer[] => [0, 1, 2].map((i) => readFileSync(join(root, out, 'imagenet8_features', `${i}.npy`)));
  expect(await run('whole')).toEqual({ written: 3, present: 0 });
  await run('again');
  for (const kind of ['features', 'labels']) rmSync(join(root, 'again', `imagenet8_${kind}`, '2.npy'));
  expect(await run('again')).toEqual({ written: 1, present: 2 });
  expect(of('again').every((bytes, i) => bytes.equals(of('whole')[i]!))).toBe(true);

  image('cat/aa.png', 3);
  await expect(run('again')).rejects.toThrow(CheckpointError);
  await expect(run('again')).rejects.toThrow(/imagenet8_files\.json says that what is there comes from 3 other files than these 4/);
  expect(readdirSync(join(root, 'again', 'imagenet8_labels'))).toHaveLength(3);
  expect(await run('new')).toEqual({ written: 4, present: 0 });
  vae.dispose();
});

it('goes on after files that cannot be decoded, with what it began with alone; a pack takes what is there', async () => {
  const images = join(root, 'broken');
  mkdirSync(join(images, 'cat'), { recursive: true });
  for (const i of [0, 2, 3]) writeFileSync(join(images, 'cat', `${i}.png`), encode({ width: 8, height: 8, channels: 3, data: Uint8Array.from(createRng(i).uniform(192), (u) => 256 * u) }));
  writeFileSync(join(images, 'cat', '1.png'), 'no image');
  const made = (seed: number): AutoencoderKL => new AutoencoderKL({ inChannels: 3, channels: 8, channelMultipliers: [1, 1], numResBlocks: 1, latentChannels: 4, groups: 4, scalingFactor: 1 }, { init: createRng(seed) });
  const [vae, other] = [made(2), made(3)];
  const broken: string[] = [];
  const run = async (out: string, { of = vae, seed = 0 } = {}) => encodeFolder(await openImageFolder(images), of, join(root, out), { size: 8, rng: createRng(seed), batchSize: 1, onBroken: (path) => broken.push(path) });
  const features = (out: string, i: number): Buffer => readFileSync(join(root, out, 'imagenet8_features', `${i}.npy`));
  expect(await run('skip')).toEqual({ written: 3, present: 0 });
  expect(await run('skip')).toEqual({ written: 0, present: 3 });
  await run('skipped');
  rmSync(join(root, 'skipped', 'imagenet8_labels', '3.npy'));
  expect(await run('skipped')).toEqual({ written: 1, present: 2 });
  expect(features('skipped', 3).equals(features('skip', 3))).toBe(true);
  await expect(run('skip', { of: other })).rejects.toThrow(/encoded by another autoencoder/);
  await expect(run('skip', { seed: 1 })).rejects.toThrow(/drawn with another seed/);

  await using source = await openSampleSource(join(root, 'skip'));
  const places: number[] = [];
  for await (const { place } of source.samples(0)) places.push(place);
  expect(places).toEqual([0, 2, 3]);
  vae.dispose();
  other.dispose();
});

import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CheckpointError, createRng } from '@tinyfusion/core';
import { openImageFolder } from '@tinyfusion/data/node';
import { useBackend } from '@tinyfusion/kernels';
import { AutoencoderKL } from '@tinyfusion/models';
import { encodeFolder } from '@tinyfusion/recipes/node';
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

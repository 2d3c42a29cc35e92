// Training the embedded models again, from a folder of IDX files.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { trainJob } from '@tinyfusion/recipes/node';
import { afterAll, beforeAll, expect, it } from 'vitest';

const root = mkdtempSync(join(tmpdir(), 'train-'));
const data = join(root, 'idx');
const out = join(root, 'out');
const of = (name: string): string => join(out, `${name}.safetensors`);

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
  mkdirSync(data);
  for (const [split, count] of [['train', 130], ['t10k', 10]] as const) {
    writeFileSync(join(data, `${split}-images-idx3-ubyte`), Buffer.from([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28, ...createRng(count).integers(0, 256, count * 784)]));
    writeFileSync(join(data, `${split}-labels-idx1-ubyte`), Buffer.from([0, 0, 8, 1, 0, 0, 0, count, ...Array.from({ length: count }, (_, i) => i % 10)]));
  }
});

afterAll(() => rmSync(root, { recursive: true }));

it('goes on with what is finished, and does not take a try for the real thing', async () => {
  const train = (options: { fast: boolean }, signal?: AbortSignal) => trainJob({ data, out, steps: 8500, ...options }, { command: 'test', signal });
  const stop = new AbortController();
  const stopped = trainJob({ data, out, steps: 8500, fast: true }, { command: 'test', signal: stop.signal, onProgress: ({ task, step }) => void (task === 'train' && step === 2 && stop.abort()) });
  await expect(stopped).rejects.toMatchObject({ code: 'CANCELLED' });
  const autoencoder = readFileSync(of('autoencoder'));
  await train({ fast: true });
  expect(readFileSync(of('autoencoder')).equals(autoencoder)).toBe(true);
  const curve = JSON.parse(readFileSync(join(out, 'teacher.curve.json'), 'utf8')) as [number, number][];
  expect(curve.map(([step]) => step)).toEqual([1, 2, 3, 4]);
  const inTwo = readFileSync(of('teacher'));

  // a run of one go is the same
  for (const name of ['teacher', 'teacher.run', 'autoencoder', 'features']) rmSync(of(name));
  await train({ fast: true });
  expect(readFileSync(of('teacher')).equals(inTwo)).toBe(true);

  await expect(train({ fast: false })).rejects.toThrow(/autoencoder\.safetensors was made of idx by trainAutoencoder, 4 steps of 32.*, not of idx by trainAutoencoder, 1000 steps/);
}, 300_000);

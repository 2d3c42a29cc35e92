import { DataError, throwIfCancelled } from '@tinyfusion/core';
import { bytesSource, readNpy, toFloat32 } from '@tinyfusion/weights';
import { readFile, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { channelsLast, latentShape } from './channels-last.js';
import { type SampleSource, type SampleSourceOptions, numbered } from './sample-source.js';

/** Files read at once, and ahead of the one in use. */
const AHEAD = 16;

/** Latents and labels in a file each, as `tinyfusion encode`, TinyFusion's and fast-DiT's `extract_features.py` write them. */
export async function npyFolderSource(features: string, labels: string, { classes }: SampleSourceOptions): Promise<SampleSource> {
  // an image that could not be decoded leaves its number out
  const all = (await readdir(features)).filter((name) => /^(0|[1-9]\d*)\.npy$/.test(name)).map((name) => Number.parseInt(name, 10)).toSorted((a, b) => a - b);
  if (all.length === 0) throw new DataError(`${features} has no .npy with a number for its name; expected latents in 0.npy, 1.npy and so on`);
  const count = all.at(-1)! + 1;
  if (all.length < count) console.error(`note: ${features} has ${all.length} files up to ${count - 1}.npy: ${count - all.length} numbers are left out`);
  const latents = async (place: number): Promise<{ shape: ReturnType<typeof latentShape>; values: Float32Array }> => {
    const record = await npy(join(features, `${place}.npy`));
    return { shape: latentShape(join(features, `${place}.npy`), record.shape), values: await toFloat32(record) };
  };
  const label = async (place: number): Promise<number> => {
    const path = join(labels, `${place}.npy`);
    const [value, ...others] = await toFloat32(await npy(path));
    if (value === undefined || others.length > 0 || !Number.isInteger(value) || value < 0) throw new DataError(`${path} is no label: expected one integer from 0`);
    return value;
  };
  const { shape } = await latents(all[0]!);
  const [views, channels, height, width] = shape;
  return {
    kind: 'latents',
    shape: [height, width, channels],
    views,
    classNames: await classNames(),
    count,
    source: { from: '.npy files', files: all.length },
    async *samples(from, signal) {
      const read = async (place: number) => ({ ...(await latents(place)), label: await label(place) });
      const waiting: ReturnType<typeof read>[] = [];
      const places = all.filter((place) => place >= from);
      for (const [i, place] of places.entries()) {
        throwIfCancelled(signal, 'pack');
        for (const next of places.slice(i + waiting.length, i + AHEAD)) {
          waiting.push(read(next));
          waiting.at(-1)!.catch(() => {}); // told when its turn has come
        }
        const sample = await waiting.shift()!;
        if (String(sample.shape) !== String(shape)) throw new DataError(`${join(features, `${place}.npy`)} has shape [${sample.shape.join(', ')}], the first one [${shape.join(', ')}]`);
        yield { place, label: sample.label, values: channelsLast(sample.values, shape) };
      }
    },
    [Symbol.asyncDispose]: async () => {},
  };

  /** Those that `tinyfusion encode` wrote, or the numbers of all labels. */
  async function classNames(): Promise<string[]> {
    const stored = await readFile(join(dirname(features), 'classes.json'), 'utf8').then((text) => JSON.parse(text) as string[], () => []);
    if (stored.length > 0) return stored;
    if (classes !== undefined) return numbered([], classes);
    const found: number[] = [];
    for (let at = 0; at < all.length; at += AHEAD) found.push(...(await Promise.all(all.slice(at, at + AHEAD).map(label))));
    return numbered(found, undefined);
  }
}

async function npy(path: string) {
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new DataError(`${path} cannot be read: ${(cause as Error).message}`, { cause });
  });
  return (await readNpy(bytesSource(bytes, path))).tensors.get('array')!;
}

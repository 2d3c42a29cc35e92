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
  const present = new Set(await readdir(features));
  let count = 0;
  while (present.has(`${count}.npy`)) count++;
  if (count === 0) throw new DataError(`${features} has no 0.npy; expected latents in 0.npy, 1.npy and so on`);
  if (present.size > count) console.error(`note: ${features} is read up to ${count - 1}.npy: ${count}.npy is missing, and ${present.size - count} files come after it`);
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
  const { shape } = await latents(0);
  const [views, channels, height, width] = shape;
  return {
    kind: 'latents',
    shape: [height, width, channels],
    views,
    classNames: await classNames(),
    count,
    source: { from: '.npy files', files: count },
    async *samples(from, signal) {
      const read = async (place: number) => ({ ...(await latents(place)), label: await label(place) });
      const waiting: ReturnType<typeof read>[] = [];
      for (let place = from; place < count; place++) {
        throwIfCancelled(signal, 'pack');
        for (let next = place + waiting.length; next < Math.min(count, place + AHEAD); next++) {
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
    const all: number[] = [];
    for (let at = 0; at < count; at += AHEAD) all.push(...(await Promise.all(Array.from({ length: Math.min(AHEAD, count - at) }, (_, i) => label(at + i)))));
    return numbered(all, undefined);
  }
}

async function npy(path: string) {
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new DataError(`${path} cannot be read: ${(cause as Error).message}`, { cause });
  });
  return (await readNpy(bytesSource(bytes, path))).tensors.get('array')!;
}

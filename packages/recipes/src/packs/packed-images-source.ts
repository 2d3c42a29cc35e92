import { DataError, throwIfCancelled } from '@tinyfusion/core';
import { Pack } from '@tinyfusion/data/node';
import type { SampleSource } from './sample-source.js';

/** The plain views of a pack of images, to make latents of. */
export async function packedImagesSource(path: string): Promise<SampleSource> {
  const pack = await Pack.open(path);
  const { kind, shape, classNames } = pack.info;
  if (kind !== 'images') {
    pack.close();
    throw new DataError(`${path} is a pack of latents already; use it with --data`);
  }
  return {
    kind: 'images',
    shape,
    views: 1,
    classNames,
    count: pack.count,
    source: { from: 'a pack', pack: pack.fingerprint },
    async *samples(from, signal) {
      for (let place = from; place < pack.count; place++) {
        throwIfCancelled(signal, 'pack');
        yield { place, label: pack.labels[place]!, values: await pack.read([{ index: place }]) };
      }
    },
    [Symbol.asyncDispose]: async () => pack.close(),
  };
}

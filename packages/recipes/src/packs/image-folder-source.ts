import { createHash } from 'node:crypto';
import { centreCrop } from '@tinyfusion/data';
import { openImageFolder, readImages } from '@tinyfusion/data/node';
import type { SampleSource, SampleSourceOptions } from './sample-source.js';

/** Images in a folder for each class, cropped to the middle as ADM does. */
export async function imageFolderSource(path: string, { size = 256, onBroken }: SampleSourceOptions): Promise<SampleSource> {
  const folder = await openImageFolder(path);
  const places = new Map(folder.paths.map((name, i) => [name, i]));
  return {
    kind: 'images',
    shape: [size, size, 3],
    views: 1,
    classNames: folder.classNames.length === 0 ? ['all'] : folder.classNames,
    count: folder.paths.length,
    // a file that came or went would shift the places of those after it
    source: { from: 'a folder of images', files: createHash('sha256').update(folder.paths.join('\n')).digest('hex'), size },
    async *samples(from, signal) {
      for await (const image of readImages(folder, { from, signal, ...(onBroken === undefined ? {} : { onBroken }) })) yield { place: places.get(image.path)!, label: image.label, values: centreCrop(image, size).pixels };
    },
    [Symbol.asyncDispose]: async () => {},
  };
}

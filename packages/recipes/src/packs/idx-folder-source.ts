import { dataHash } from '../runs/data-hash.js';
import { loadIdxFolder } from '@tinyfusion/data/node';
import type { SampleSource } from './sample-source.js';

/** The training images of a folder of IDX files. */
export async function idxFolderSource(path: string): Promise<SampleSource> {
  const data = await loadIdxFolder(path);
  const { height, width, channels, labels, images, classNames } = data;
  const size = height * width * channels;
  return {
    kind: 'images',
    shape: [height, width, channels],
    views: 1,
    classNames,
    count: labels.length,
    source: { from: 'IDX files', images: dataHash(data) },
    async *samples(from) {
      for (let place = from; place < labels.length; place++) yield { place, label: labels[place]!, values: images.subarray(place * size, (place + 1) * size) };
    },
    [Symbol.asyncDispose]: async () => {},
  };
}

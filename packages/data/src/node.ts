/**
 * Data sets on disk, under Node.
 * @packageDocumentation
 */
import { DataError } from '@tinyfusion/core';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type ImageDataset, checkDataset } from './image-dataset.js';
import { readIdx } from './idx.js';

export { Pack, type PackPick } from './packs/pack.js';
export { packBatches, type PackBatch, type PackBatches, type PackBatchesOptions, type PackCache } from './packs/pack-batches.js';
export { readPackInfo, type PackDescription, type PackInfo, type PackSource } from './packs/pack-info.js';
export type { PackItem } from './packs/pack-record.js';
export { PackWriter } from './packs/pack-writer.js';
export { openImageFolder, readImages, type FolderImage, type ImageFolder, type ReadImagesOptions } from './image-folder.js';

/** Options of {@link loadIdxFolder}. */
export interface IdxFolderOptions {
  /** Default `'train'`; `'test'` reads the files that begin with `t10k`. */
  split?: 'train' | 'test';
  /** One name a class; their number is the number of classes. Default: the ten digits. */
  classNames?: readonly string[];
}

/**
 * Loads a folder of IDX files with MNIST's names: `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` and so on, with or
 * without `.gz`.
 * @throws DataError where a file is missing, damaged, or does not fit the other
 */
export async function loadIdxFolder(folder: string, { split = 'train', classNames = Array.from({ length: 10 }, (_, i) => String(i)) }: IdxFolderOptions = {}): Promise<ImageDataset> {
  const prefix = split === 'train' ? 'train' : 't10k';
  let files: string[];
  try {
    files = await readdir(folder);
  } catch (cause) {
    throw new DataError(`the data folder ${folder} cannot be read; expected a folder with ${prefix}-images-idx3-ubyte(.gz) and ${prefix}-labels-idx1-ubyte(.gz)`, { cause });
  }
  const read = async (kind: 'images' | 'labels') => {
    const name = files.find((f) => f.startsWith(`${prefix}-${kind}`) && /^[^.]*([-.]idx\d-ubyte)?(\.gz)?$/.test(f));
    if (name === undefined) throw new DataError(`${folder} has no ${prefix}-${kind}-idx${kind === 'images' ? 3 : 1}-ubyte(.gz); it has: ${files.slice(0, 8).join(', ') || 'nothing'}`);
    const path = join(folder, name);
    return { path, ...(await readIdx(await readFile(path), path)) };
  };
  const [images, labels] = [await read('images'), await read('labels')];
  if (images.shape.length !== 3) throw new DataError(`${images.path} has shape [${images.shape.join(', ')}], expected [N, height, width]`);
  const [, height, width] = images.shape as [number, number, number];
  return checkDataset({ images: images.values, labels: Int32Array.from(labels.values), height, width, channels: 1, numClasses: classNames.length, classNames }, images.path);
}

import { ArgumentError, DataError } from '@tinyfusion/core';
import { readPackInfo } from '@tinyfusion/data/node';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { idxFolderSource } from './idx-folder-source.js';
import { imageFolderSource } from './image-folder-source.js';
import { npyFolderSource } from './npy-folder-source.js';
import { npzSource } from './npz-source.js';
import { packedImagesSource } from './packed-images-source.js';
import type { SampleSource, SampleSourceOptions } from './sample-source.js';

/**
 * Opens what a pack is to be made of, told by what lies there: IDX files; `*_features` and `*_labels` of `.npy` files; an
 * `.npz`; a pack of images; images in a folder for each class.
 * @throws DataError where it is none of these
 */
export async function openSampleSource(path: string, options: SampleSourceOptions = {}): Promise<SampleSource> {
  const kind = await stat(path).catch((cause: unknown) => {
    throw new DataError(`${path} cannot be read: ${(cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file or folder' : String(cause)}`, { cause });
  });
  if (options.classes !== undefined && !(Number.isInteger(options.classes) && options.classes > 0)) throw new ArgumentError('classes', options.classes, 'a positive integer');
  if (!kind.isDirectory()) return npzSource(path, options);
  if ((await readPackInfo(path)) !== undefined) return packedImagesSource(path);
  const names = await readdir(path);
  if (names.some((name) => /^train-images[-.]idx3-ubyte/.test(name))) return idxFolderSource(path);
  const features = names.find((name) => name.endsWith('_features'));
  if (features !== undefined) return npyFolderSource(join(path, features), join(path, features.replace(/_features$/, '_labels')), options);
  return imageFolderSource(path, options);
}

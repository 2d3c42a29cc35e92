import { CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import { readStatistics } from '@tinyfusion/eval';
import { openCheckpoint } from '@tinyfusion/weights/node';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Reference } from '../evaluate-images.js';
import { type FolderSourceOptions, folderSource } from '../folder-source.js';
import { type ImageSource, archiveSource } from '../image-source.js';
import { openWeights } from './weights-file.js';

/** Sets of images as they lie on disk. */

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
}

/**
 * A folder of images, an archive of them, statistics, or an archive of both.
 * @throws CheckpointError where it is none of these
 */
export async function openReference(path: string, options: FolderSourceOptions, context: LongTaskOptions): Promise<Reference & AsyncDisposable> {
  const name = basename(path);
  if (await isFolder(path)) return { name, images: await folderSource(path, options), [Symbol.asyncDispose]: async () => {} };
  const archive = await openWeights(path, context);
  try {
    const statistics = archive.tensors.has('mu') || archive.tensors.has('sigma') ? await readStatistics(archive, name) : undefined;
    const images = archive.tensors.has('arr_0') ? archiveSource(archive, name) : undefined;
    if (images === undefined && statistics === undefined) throw new CheckpointError(`${name} has neither images (arr_0) nor statistics (mu and sigma); it has: ${[...archive.tensors.keys()].slice(0, 8).join(', ') || 'nothing'}`);
    return { name, images, statistics, [Symbol.asyncDispose]: () => archive[Symbol.asyncDispose]() };
  } catch (error) {
    await archive[Symbol.asyncDispose]();
    throw error;
  }
}

/** A folder or an archive of images. @throws CheckpointError where it is neither */
export async function openSamples(path: string, options: FolderSourceOptions): Promise<ImageSource & AsyncDisposable> {
  if (await isFolder(path)) return { ...(await folderSource(path, options)), [Symbol.asyncDispose]: async () => {} };
  const archive = await openCheckpoint(path);
  try {
    return { ...archiveSource(archive, basename(path)), [Symbol.asyncDispose]: () => archive[Symbol.asyncDispose]() };
  } catch (error) {
    await archive[Symbol.asyncDispose]();
    throw error;
  }
}

import { CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import { type Source, type StateDict, fetchCheckpoint, fetchFile, isLocatable, knownCheckpoints } from '@tinyfusion/weights';
import { fileSource, loadCheckpoint, nodeCache, openCheckpoint } from '@tinyfusion/weights/node';
import { access } from 'node:fs/promises';

/** Files by their path, or where there is none by the name of a published one, which is fetched into the cache. */

const fetchOptions = ({ signal, onProgress }: LongTaskOptions) => ({ signal, onProgress, offline: process.env['TINYFUSION_OFFLINE'] === '1', hubToken: process.env['HF_TOKEN'] });

async function isWanted(path: string): Promise<boolean> {
  const isHere = await access(path).then(
    () => true,
    () => false,
  );
  if (isHere) return false;
  if (isLocatable(path)) return true;
  // a name, mistyped
  if (/^[\w-]+$/.test(path)) throw new CheckpointError(`there is no file ${path}, and no published checkpoint of that name; known are ${Object.keys(knownCheckpoints).join(', ')}`);
  return false;
}

/** A checkpoint, read lazily. Close it. @throws CheckpointError where it is neither here nor to be had */
export async function openWeights(path: string, context: LongTaskOptions): Promise<StateDict & AsyncDisposable> {
  return (await isWanted(path)) ? fetchCheckpoint(path, nodeCache(), fetchOptions(context)) : openCheckpoint(path);
}

/** A checkpoint, read whole. Throws as {@link openWeights} does. */
export async function loadWeights(path: string, context: LongTaskOptions): Promise<StateDict> {
  if (!(await isWanted(path))) return loadCheckpoint(path);
  await using file = await fetchFile(path, nodeCache(), fetchOptions(context));
  return loadCheckpoint(file.name);
}

/** The file itself. Throws as {@link openWeights} does. */
export async function openFile(path: string, context: LongTaskOptions): Promise<Source & AsyncDisposable> {
  return (await isWanted(path)) ? fetchFile(path, nodeCache(), fetchOptions(context)) : fileSource(path);
}

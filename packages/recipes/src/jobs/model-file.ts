import { ArgumentError } from '@tinyfusion/core';
import { parseSafetensors } from '@tinyfusion/weights';
import { checkWritable, writeCheckpoint, writeFileAtomic } from '@tinyfusion/weights/node';
import { resolve } from 'node:path';

/**
 * Whether a model can be written there: asked before hours of work, not after.
 * @param reads files that the job reads, by their options: they stay as they are
 * @throws ArgumentError where the ending names no format, or a file that is read would be written over; CheckpointError where nothing can be written
 */
export async function checkModelPath(option: string, path: string, reads: Readonly<Record<string, string | undefined>> = {}): Promise<void> {
  for (const [name, read] of Object.entries(reads)) if (read !== undefined && resolve(read) === resolve(path)) throw new ArgumentError(option, path, `another file than ${name}, which stays as it is`);
  if (!/\.(safetensors|pt|pth|ckpt|npz)$/.test(path)) throw new ArgumentError(option, path, 'a path that ends in .safetensors, .pt or .npz');
  await checkWritable(path);
}

/**
 * Writes a model, with what its metadata says of it, in the format that the path's ending names, in a folder that is made;
 * and says so.
 * @param bytes of `saveModel`
 */
export async function writeModel(path: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  if (path.endsWith('.safetensors')) await writeFileAtomic(path, bytes);
  else await writeCheckpoint(path, await parseSafetensors(bytes));
  console.log(`wrote ${path}`);
}

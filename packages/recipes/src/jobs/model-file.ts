import { ArgumentError } from '@tinyfusion/core';
import { parseSafetensors } from '@tinyfusion/weights';
import { checkWritable, writeCheckpoint, writeFileAtomic } from '@tinyfusion/weights/node';

/**
 * Whether a model can be written there: asked before hours of work, not after.
 * @throws ArgumentError where the ending names no format; CheckpointError where nothing can be written
 */
export async function checkModelPath(option: string, path: string): Promise<void> {
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

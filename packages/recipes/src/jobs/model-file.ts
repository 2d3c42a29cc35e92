import { ArgumentError } from '@tinyfusion/core';
import { parseSafetensors } from '@tinyfusion/weights';
import { writeCheckpoint, writeFileAtomic } from '@tinyfusion/weights/node';

/** Refuses a place for a model whose ending names no format: before hours of work, not after. @throws ArgumentError */
export function checkModelPath(option: string, path: string): void {
  if (!/\.(safetensors|pt|pth|ckpt|npz)$/.test(path)) throw new ArgumentError(option, path, 'a path that ends in .safetensors, .pt or .npz');
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

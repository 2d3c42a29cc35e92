import { CheckpointError, DataError } from '@tinyfusion/core';
import { type StateDict, tensorParts } from '@tinyfusion/weights';
import type * as tf from '@tensorflow/tfjs-core';
import { bytesOf } from './png.js';

/** Images in a stream, all of one size: an archive's, a folder's, or those that a model draws. */
export interface ImageSource {
  readonly name: string;
  /** At most; fewer come where broken files are left out. */
  readonly count: number;
  readonly height: number;
  readonly width: number;
  /**
   * Reads all images from the first.
   * @param most images at a time
   * @returns bytes `[n, height, width, 3]` each, n up to `most`
   */
  batches(most: number): AsyncIterable<Uint8Array>;
  /** What a reader of numbers made from them should know; complete once they are read. */
  readonly warnings: readonly string[];
}

/**
 * The images of an archive as evaluators exchange them, `arr_0` of bytes `[N, H, W, 3]`; read in parts.
 * @throws CheckpointError where there are none, with what is there instead
 */
export function archiveSource(archive: StateDict, name: string): ImageSource {
  const record = archive.tensors.get('arr_0');
  if (record === undefined) throw new CheckpointError(`${name} has no arr_0, where images are; it has: ${[...archive.tensors.keys()].join(', ') || 'nothing'}`);
  const [count, height, width, channels] = record.shape;
  if (record.dtype !== 'U8' || record.shape.length !== 4 || channels !== 3) {
    const turned = record.shape[1] === 3 ? '; these have their channels before the rows, as PyTorch: transpose them to (0, 2, 3, 1)' : record.dtype === 'U8' ? '' : '; scale them to 0 … 255 and convert them to uint8';
    throw new CheckpointError(`${name}: arr_0 is ${record.dtype} of shape [${record.shape.join(', ')}], expected bytes of shape [N, height, width, 3]${turned}`);
  }
  const size = height! * width! * 3;
  return { name, count: count!, height: height!, width: width!, warnings: [], batches: (most) => regrouped(tensorParts(record), most * size, size) };
}

/** Images that are drawn while they are measured. @param draw `[n, H, W, C]` in [-1, 1] each, which are freed here */
export function drawnSource(name: string, count: number, side: number, draw: () => AsyncIterable<tf.Tensor4D>): ImageSource {
  async function* bytes(): AsyncGenerator<Uint8Array> {
    for await (const images of draw()) {
      const channels = images.shape[3];
      for (const pixels of await bytesOf(images)) yield channels === 3 ? pixels : Uint8Array.from({ length: 3 * pixels.length }, (_, i) => pixels[Math.floor(i / 3)]!);
      images.dispose();
    }
  }
  const size = side * side * 3;
  return { name, count, height: side, width: side, warnings: [], batches: (most) => regrouped(bytes(), most * size, size) };
}

/**
 * Bytes that come in any parts, in parts of `length`, the last one shorter.
 * @yields parts that are the receiver's
 */
async function* regrouped(parts: AsyncIterable<Uint8Array>, length: number, unit: number): AsyncGenerator<Uint8Array, void, void> {
  let group = new Uint8Array(length);
  let filled = 0;
  for await (const part of parts) {
    for (let at = 0; at < part.length; ) {
      const taken = Math.min(length - filled, part.length - at);
      group.set(part.subarray(at, at + taken), filled);
      filled += taken;
      at += taken;
      if (filled === length) {
        yield group;
        group = new Uint8Array(length);
        filled = 0;
      }
    }
  }
  if (filled % unit !== 0) throw new DataError(`images ended in the middle of one: ${filled} bytes are left, an image has ${unit}`);
  if (filled > 0) yield group.subarray(0, filled);
}

import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import type { TensorRecord } from '@tinyfusion/weights';
import { checkWritable, diskReason, makeFolder, writeCheckpoint, writeFileAtomic } from '@tinyfusion/weights/node';
import * as tf from '@tensorflow/tfjs-core';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, readFile, readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { type GridOptions, bytesOf, encodePng, gridPng } from './png.js';

/** Where drawn images go, batch by batch; nothing is there under its name before it is whole. */
export interface ImageSink {
  /**
   * Asked before anything is drawn.
   * @param count of the images to come, where it is known already
   * @throws CheckpointError where nothing can be written there, or what is there would stand as if it were of these images
   */
  check(count?: number): Promise<void>;
  /** @param images `[n, H, W, C]` in [-1, 1], C 1 or 3; borrowed @param labels their classes */
  add(images: tf.Tensor4D, labels: readonly number[]): Promise<void>;
  /** Completes what was begun. @returns what was written, for a person */
  finish(): Promise<string>;
  /** Removes what was begun. */
  abandon(): Promise<void>;
}

/** Images side by side, as one PNG. */
export function gridSink(path: string, grid: GridOptions): ImageSink {
  const batches: tf.Tensor4D[] = [];
  return {
    check: () => checkWritable(path),
    add: async (images) => void batches.push(tf.clone(images)),
    finish: async () => {
      const all = tf.concat(batches, 0);
      try {
        await writeFileAtomic(path, await gridPng(all, grid));
      } finally {
        tf.dispose([all, ...batches.splice(0)]);
      }
      return path;
    },
    abandon: async () => tf.dispose(batches.splice(0)),
  };
}

const nameOf = (index: number): string => `${String(index).padStart(6, '0')}.png`;

/** One PNG an image, `000000.png` and so on, as the references' `sample_ddp.py` names them. */
export function folderSink(folder: string): ImageSink {
  let [count, before] = [0, 0];
  return {
    check: async (most = Infinity) => {
      await checkWritable(join(folder, nameOf(0)));
      const there = (await readdir(folder).catch(() => [])).filter((name) => /^\d{6,}\.png$/.test(name)).toSorted();
      const stale = there.filter((name) => Number.parseInt(name, 10) >= most);
      before = there.length;
      if (stale.length > 0) throw new CheckpointError(`${folder} has ${stale.length === 1 ? 'an image' : `${stale.length} images`} of another set beside the ${most} to come, ${stale[0]!}${stale.length === 1 ? '' : ` to ${stale.at(-1)!}`}, which evaluate would measure with them; remove what is in it, or name another folder`);
    },
    add: async (images) => {
      const [, height, width, channels] = images.shape;
      for (const pixels of await bytesOf(images)) await writeFileAtomic(join(folder, nameOf(count++)), encodePng({ width, height, channels, pixels }));
    },
    finish: async () => `${count} images in ${folder}`,
    abandon: async () => {
      // each image is whole
      if (count > 0 && before > count) console.error(`note: ${folder} has ${count} images of this set, up to ${nameOf(count - 1)}; those after them are of the set that was there before`);
    },
  };
}

/** `arr_0` of bytes `[N, H, W, 3]` and `arr_1` of labels, as ADM's evaluator reads; on disk meanwhile, not in memory. */
export function npzSink(path: string): ImageSink {
  const raw = `${path}.images.part`;
  let file: FileHandle | undefined;
  let size: number[] = [];
  const labels: number[] = [];
  const abandon = async (): Promise<void> => {
    await file?.close();
    file = undefined;
    await rm(raw, { force: true });
  };
  return {
    abandon,
    check: () => checkWritable(path),
    add: async (images, own) => {
      const [, height, width, channels] = images.shape;
      size = [height, width, 3];
      try {
        if (file === undefined) {
          await makeFolder(dirname(path));
          file = await open(raw, 'w');
        }
        for (const pixels of await bytesOf(images)) await file.writeFile(channels === 3 ? pixels : Uint8Array.from({ length: 3 * pixels.length }, (_, i) => pixels[Math.floor(i / 3)]!));
      } catch (cause) {
        throw new CheckpointError(`${path} cannot be written: ${diskReason(cause)}`, { cause });
      }
      labels.push(...own);
    },
    finish: async () => {
      if (file === undefined) throw new ArgumentError('images', 0, 'at least one');
      await file.close();
      file = undefined;
      try {
        const images: TensorRecord = { dtype: 'U8', shape: [labels.length, ...size], read: () => readFile(raw), stream: () => Readable.toWeb(createReadStream(raw)) as ReadableStream<Uint8Array> };
        const classes: TensorRecord = { dtype: 'I64', shape: [labels.length], read: async () => new Uint8Array(BigInt64Array.from(labels, BigInt).buffer) };
        await writeCheckpoint(path, { tensors: new Map([['arr_0', images], ['arr_1', classes]]), metadata: new Map() });
      } finally {
        await abandon();
      }
      return path;
    },
  };
}

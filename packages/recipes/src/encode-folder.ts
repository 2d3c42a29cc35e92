import { ArgumentError, CheckpointError, type LongTaskOptions, type Rng, concatenate, throwIfCancelled } from '@tinyfusion/core';
import { type FolderImage, type ImageFolder, readImages } from '@tinyfusion/data/node';
import { centreCrop, normalised } from '@tinyfusion/data';
import { type AutoencoderKL, samplePosterior } from '@tinyfusion/models';
import { readState } from '@tinyfusion/nn';
import { stateDictHash, stateDictOf, writableTensor, writeNpy } from '@tinyfusion/weights';
import { makeFolder, writeFileAtomic } from '@tinyfusion/weights/node';
import * as tf from '@tensorflow/tfjs-core';
import { createHash } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { checkCount } from './check-options.js';
import { breathe } from './loop.js';

/**
 * A folder of images as latents and labels on disk, as TinyFusion's and fast-DiT's training reads them: for image i
 * `imagenet256_features/i.npy`, float32 `[2, c, h, w]` (plain and flipped, PyTorch's layout), and
 * `imagenet256_labels/i.npy`, int64 `[1]`; beside them `imagenet256_files.json`, which files these are and how they were
 * encoded. Upstream: `extract_features.py`.
 *
 * Command: `tinyfusion encode data/imagenet/train --vae sd-vae-ft-ema.safetensors --out features`.
 * Cost: two passes of the encoder an image.
 */
export interface EncodeFolderOptions extends LongTaskOptions {
  /** Side of the centre crop, a multiple of the autoencoder's downsampling. Default 256. */
  size?: number;
  /** Draws from the posteriors, two of each image in order. With `torchCuda(0)` upstream's numbers. */
  rng: Rng;
  /** Images encoded at once, each twice. Default 4. */
  batchSize?: number;
  /** Takes broken files instead of an error. */
  onBroken?: (path: string, reason: string) => void;
}

/**
 * Encodes what is not there yet: a run that was stopped goes on, with the same numbers.
 * @returns images written, and those that were there
 * @throws CheckpointError where `out` has images of another list of files, an image's number is its place in it; or of another autoencoder or seed
 */
export async function encodeFolder(folder: ImageFolder, vae: AutoencoderKL, out: string, { size = 256, rng, batchSize = 4, onBroken, signal, onProgress }: EncodeFolderOptions): Promise<{ written: number; present: number }> {
  const factor = vae.downsampling;
  if (!Number.isInteger(size) || size < factor || size % factor !== 0) throw new ArgumentError('size', size, `a multiple of ${factor}, the autoencoder's downsampling`);
  checkCount('batchSize', batchSize);
  const { latentChannels } = vae.config;
  const side = size / factor;
  const values = latentChannels * side * side;
  const [features, labels] = [join(out, `imagenet${size}_features`), join(out, `imagenet${size}_labels`)];
  await Promise.all([features, labels].map((path) => makeFolder(path)));

  // an image's name is its place in the folder, so that a broken one shifts no other
  const total = folder.paths.length;
  const done = new Set((await readdir(labels)).filter((name) => /^\d+\.npy$/.test(name)).map((name) => Number.parseInt(name, 10)));
  await checkList(join(out, `imagenet${size}_files.json`), { ...listOf(folder), autoencoder: await stateDictHash(stateDictOf(await readState(vae)), { signal }), draws: sha256(JSON.stringify(rng.state())) }, done.size > 0);
  let from = 0;
  while (done.has(from)) from++;
  for (let i = 0; i < from; i++) rng.normal(2 * values); // what they took from the stream

  const places = new Map(folder.paths.map((path, i) => [path, i]));
  let written = 0;
  let waiting: FolderImage[] = [];
  let noise: Float32Array[] = [];
  const flush = async (): Promise<void> => {
    throwIfCancelled(signal, 'encode');
    const latents = tf.tidy(() => {
      const images = tf.tensor4d(concatenate(waiting.map((image) => normalised(centreCrop(image, size)))), [waiting.length, size, size, 3]);
      const both = tf.reshape(tf.stack([images, tf.reverse(images, 2)], 1), [2 * waiting.length, size, size, 3]) as tf.Tensor4D;
      const { mean, logVariance } = vae.encode(both);
      const drawn = tf.transpose(tf.tensor4d(concatenate(noise), [2 * waiting.length, latentChannels, side, side]), [0, 2, 3, 1]);
      return tf.transpose(tf.mul(samplePosterior(mean, logVariance, drawn), vae.config.scalingFactor), [0, 3, 1, 2]);
    });
    const all = (await latents.data()) as Float32Array;
    latents.dispose();
    for (const [i, { path, label }] of waiting.entries()) {
      const place = places.get(path)!;
      await writeFileAtomic(join(features, `${place}.npy`), writeNpy(writableTensor(all.subarray(2 * i * values, 2 * (i + 1) * values), [2, latentChannels, side, side], 'F32')));
      // the label last: it says that the image is done
      await writeFileAtomic(join(labels, `${place}.npy`), writeNpy({ dtype: 'I64', shape: [1], bytes: new Uint8Array(BigInt64Array.of(BigInt(label)).buffer) }));
      written++;
    }
    onProgress?.({ task: 'encode', step: places.get(waiting.at(-1)!.path)! + 1, total, unit: 'image' });
    [waiting, noise] = [[], []];
    await breathe();
  };
  const broken = onBroken && ((path: string, reason: string) => {
    rng.normal(2 * values);
    onBroken(path, reason);
  });
  for await (const image of readImages(folder, { from, signal, ...(broken === undefined ? {} : { onBroken: broken }) })) {
    const drawn = rng.normal(2 * values);
    if (done.has(places.get(image.path)!)) continue; // after one that is broken
    waiting.push(image);
    noise.push(drawn);
    if (waiting.length === batchSize) await flush();
  }
  if (waiting.length > 0) await flush();
  return { written, present: done.size };
}

/** What the numbers of images and their latents come from. */
interface EncodedList {
  count: number;
  sha256: string;
  /** Hash of its weights. Lists of earlier versions do not say, nor from where draws began. */
  autoencoder?: string;
  draws?: string;
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

const listOf = ({ paths }: ImageFolder): EncodedList => ({ count: paths.length, sha256: sha256(paths.join('\n')) });

/** Keeps which files are encoded and how, and refuses others. */
async function checkList(path: string, list: EncodedList, begun: boolean): Promise<void> {
  const before = await readFile(path, 'utf8')
    .then((text) => JSON.parse(text) as Partial<EncodedList>)
    .catch(() => undefined);
  if (before === undefined || !begun) return writeFileAtomic(path, `${JSON.stringify(list)}\n`);
  if (before.sha256 !== list.sha256) throw new CheckpointError(`${path} says that what is there comes from ${before.count} other files than these ${list.count}, so that numbers and labels would not belong together; give the folder that was begun with, or another --out`);
  if ((before.autoencoder ?? list.autoencoder) !== list.autoencoder) throw new CheckpointError(`${path} says that what is there was encoded by another autoencoder, so that latents would not belong together; give the one that was begun with, or another --out`);
  if ((before.draws ?? list.draws) !== list.draws) throw new CheckpointError(`${path} says that what is there was drawn with another seed or random stream; give those that were begun with, or another --out`);
}

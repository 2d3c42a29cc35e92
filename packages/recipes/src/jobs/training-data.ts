import { ArgumentError, DataError } from '@tinyfusion/core';
import { type ImageDataset, firstImages } from '@tinyfusion/data';
import { Pack, loadIdxFolder, readPackInfo } from '@tinyfusion/data/node';
import { fashionMnistClassNames, loadAutoencoder, loadFashionMnist } from '@tinyfusion/fashion-mnist';
import { loadAutoencoderKL } from '@tinyfusion/models';
import { singleCollective } from '@tinyfusion/train';
import { type LatentDataset, encodeDataset } from '../latents.js';
import { rowsOfRank } from '../loop.js';
import type { Prunable } from '../objective.js';
import { packLatents } from '../pack-latents.js';
import { dataHash } from '../runs/data-hash.js';
import type { JobContext } from './context.js';

/** Latents that a job trains on, before they are encoded. */
export interface TrainingData extends Disposable {
  /** Tells whether a run goes on with the data it began with. */
  hash: string;
  /** What they are, for records. */
  name: string;
  /** `[H, W, C]` of a latent. */
  shape: readonly [number, number, number];
  numClasses: number;
  /** How many there are; views of one image are one. */
  count: number;
  /** Reads or encodes them. Every rank of a collective has to ask. */
  latents(): Promise<LatentDataset>;
}

/** Options of {@link openTrainingData}. */
export interface TrainingDataOptions {
  /** The first so many of images that are encoded here; packs of latents are taken whole. Default: all. */
  images?: number;
}

/**
 * Training data by path: a pack, or a folder of IDX files. Images are encoded by the embedded autoencoder. Default: the embedded
 * images.
 * @throws DataError where there are none, or images that the embedded autoencoder does not take
 */
export async function openTrainingData(path: string | undefined, { images = Infinity }: TrainingDataOptions, context: JobContext): Promise<TrainingData> {
  if (path !== undefined && (await readPackInfo(path)) !== undefined) {
    const pack = await Pack.open(path);
    const { kind, shape, classNames } = pack.info;
    if (kind === 'latents') return { hash: pack.fingerprint, name: `${pack.count} latents of ${path}`, shape, numClasses: classNames.length, count: pack.count, latents: async () => packLatents(pack), [Symbol.dispose]: () => pack.close() };
    try {
      return encodedHere(firstImages(await unpacked(pack, path), images), `${path}`, context);
    } finally {
      pack.close();
    }
  }
  const all = path === undefined ? await loadFashionMnist('train') : await loadIdxFolder(path, { classNames: fashionMnistClassNames });
  return encodedHere(firstImages(all, images), path === undefined ? 'Fashion-MNIST, embedded' : path, context);
}

function encodedHere(data: ImageDataset, from: string, context: JobContext): TrainingData {
  return {
    hash: dataHash(data),
    name: `the first ${data.labels.length} images of ${from}`,
    shape: [8, 8, 4],
    numClasses: data.numClasses,
    count: data.labels.length,
    latents: async () => {
      const vae = await loadAutoencoderKL(await loadAutoencoder());
      try {
        return await encodeDataset(data, vae, context);
      } finally {
        vae.dispose();
      }
    },
    [Symbol.dispose]: () => {},
  };
}

/** The plain views of a pack of images that the embedded autoencoder takes. */
async function unpacked(pack: Pack, path: string): Promise<ImageDataset> {
  const { shape, classNames } = pack.info;
  const [height, width, channels] = shape;
  if (channels !== 1 || height > 32 || width > 32) throw new DataError(`${path} has images of ${height}×${width}×${channels}; make latents of them first, e.g. tinyfusion pack ${path} --vae sd-vae-ft-ema --out latents`);
  const bytes = await pack.read(Array.from({ length: pack.count }, (_, index) => ({ index })));
  return { images: bytes, labels: pack.labels, height, width, channels, numClasses: classNames.length, classNames };
}

/** @throws ArgumentError where a model takes other latents, or knows fewer classes, than the data have */
export function checkFits({ shape, numClasses, name }: TrainingData, { config }: Prunable): void {
  const { inputSize, inChannels } = config;
  if (shape[0] !== inputSize || shape[1] !== inputSize || shape[2] !== inChannels) throw new ArgumentError('--data', name, `latents of ${inputSize}×${inputSize}×${inChannels}, as the model takes; these are ${shape.join('×')}`);
  if (numClasses > config.numClasses) throw new ArgumentError('--data', name, `at most the model's ${config.numClasses} classes; these have ${numClasses}`);
}

/** @throws ArgumentError where there are fewer samples than a batch has, or fewer in a batch than processes that share it */
export function checkBatch(batch: number, { count, name }: TrainingData, { collective = singleCollective() }: JobContext): void {
  if (batch > count) throw new ArgumentError('--batch', batch, `at most the ${count} samples of ${name}`);
  rowsOfRank(collective, batch);
}

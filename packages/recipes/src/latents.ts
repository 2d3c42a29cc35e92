import { CancelledError, type LongTaskOptions, type Rng } from '@tinyfusion/core';
import { type BatchPosition, type ImageDataset, shuffledBatches } from '@tinyfusion/data';
import type { AutoencoderKL } from '@tinyfusion/models';
import { anyRank, broadcastJson, singleCollective } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { imageTensor } from './images.js';
import { type BatchPart, type Shared, breathe } from './loop.js';

/** A batch of latents with their labels; tensors belong to the caller. */
export interface LatentBatch {
  /** `[N, H, W, C]`, scaled to unit variance. */
  latents: tf.Tensor4D;
  /** int32 `[N]`. */
  labels: tf.Tensor1D;
}

/** Endless batches of latents, and where they stand. */
export interface LatentBatches {
  /** Settles when the next batch can be had at once. Default: it always can. */
  ready?(): Promise<void>;
  /** @param part the rows that are wanted; a data set may give all. Default: all */
  next(part?: BatchPart): LatentBatch;
  position(): BatchPosition;
}

/** Encoded images with their labels, in memory or on disk. */
export interface LatentDataset {
  /** `[H, W, C]` of one latent. */
  readonly shape: readonly [number, number, number];
  readonly labels: Int32Array;
  /** Endless shuffled batches, from a stream or from a saved position. `rows`: those that will be asked for, default all. */
  batches(batchSize: number, from: Rng | BatchPosition, rows?: BatchPart): LatentBatches;
}

/** Encodes a data set once: the posteriors' means, scaled to unit variance. Ranks of a collective encode a share each, and all get the whole. */
export async function encodeDataset(data: ImageDataset, vae: AutoencoderKL, { signal, onProgress, collective = singleCollective() }: LongTaskOptions & Shared = {}): Promise<LatentDataset> {
  const count = data.labels.length;
  const batch = 250;
  let values: Float32Array | undefined;
  let shape: [number, number, number] = [0, 0, 0];
  for (let at = collective.rank * batch; at < count; at += collective.size * batch) {
    if (signal?.aborted === true) break;
    const indices = Int32Array.from({ length: Math.min(batch, count - at) }, (_, i) => at + i);
    const latents = tf.tidy(() => vae.toLatents(imageTensor(data, indices)));
    shape = latents.shape.slice(1) as [number, number, number];
    const read = (await latents.data()) as Float32Array;
    values ??= new Float32Array((read.length / indices.length) * count);
    values.set(read, (read.length / indices.length) * at);
    latents.dispose();
    onProgress?.({ task: 'encode', step: Math.min(count, at + collective.size * batch), total: count, unit: 'image' });
    await breathe();
  }
  if (await anyRank(collective, signal?.aborted === true)) throw new CancelledError('encode');
  shape = await broadcastJson(collective, shape);
  values ??= new Float32Array(count * shape[0] * shape[1] * shape[2]);
  await collective.allReduce(values, 'sum'); // what others encoded is 0 here
  return latentDataset(values, shape, data.labels);
}

/** Latents in memory. @param values `[N, H, W, C]` */
export function latentDataset(values: Float32Array, shape: readonly [number, number, number], labels: Int32Array): LatentDataset {
  const size = shape[0] * shape[1] * shape[2];
  const pick = (indices: Int32Array): LatentBatch => {
    const out = new Float32Array(indices.length * size);
    for (const [n, index] of indices.entries()) out.set(values.subarray(index * size, (index + 1) * size), n * size);
    return { latents: tf.tensor4d(out, [indices.length, ...shape]), labels: tf.tensor1d(Int32Array.from(indices, (i) => labels[i]!), 'int32') };
  };
  return {
    shape,
    labels,
    batches: (batchSize, from) => {
      const indices = shuffledBatches(labels.length, batchSize, from);
      return {
        next: (part) => {
          const all = indices.next();
          return pick(part === undefined ? all : all.subarray(part.start, part.start + part.size));
        },
        position: () => indices.position(),
      };
    },
  };
}

import { DataError } from '@tinyfusion/core';
import { type Pack, type PackCache, packBatches } from '@tinyfusion/data/node';
import * as tf from '@tensorflow/tfjs-core';
import type { LatentDataset } from './latents.js';

/**
 * A pack of latents as training data: read ahead from the disk, and by each rank of a collective its own rows alone.
 * @param pack borrowed; open for as long as there are batches
 * @throws DataError where it has images
 */
export function packLatents(pack: Pack): LatentDataset {
  const { kind, shape } = pack.info;
  if (kind !== 'latents') throw new DataError(`the pack has ${kind}, expected latents; make them of it with tinyfusion pack --vae`);
  const size = shape[0] * shape[1] * shape[2];
  const cache: PackCache = new Map();
  return {
    shape,
    labels: pack.labels,
    batches: (batchSize, from, rows) => {
      const own = rows ?? { start: 0, size: batchSize, of: batchSize };
      const reader = packBatches(pack, batchSize, from, { rows: own, cache });
      return {
        ready: () => reader.ready(),
        next: (part = own) => {
          const { values, labels } = reader.next();
          const at = part.start - own.start;
          return { latents: tf.tensor4d(values.subarray(at * size, (at + part.size) * size), [part.size, ...shape]), labels: tf.tensor1d(labels.subarray(at, at + part.size), 'int32') };
        },
        position: () => reader.position(),
      };
    },
  };
}

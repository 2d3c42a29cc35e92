import { ArgumentError } from '@tinyfusion/core';
import { loadAutoencoder } from '@tinyfusion/fashion-mnist';
import { type AutoencoderKL, loadAutoencoderKL, loadReferenceAutoencoder } from '@tinyfusion/models';
import { weightsOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { cropCentre } from '../images.js';
import type { Prunable } from '../objective.js';
import { gridPng } from '../png.js';
import type { KeptOptions } from '../runs/run-folder.js';
import { sampleImages } from '../sample.js';
import type { JobContext } from './context.js';
import type { TrainingData } from './training-data.js';
import { openWeights } from './weights-file.js';

/** Options of runs that draw what they have learned so far. */
export interface SampleGridJob {
  /** Steps between pictures, a multiple of those between saves. Default: none are drawn. */
  sampleEvery?: number;
  /** Autoencoder of the pictures, by its file or published name. Default: the embedded one, for the embedded latents. */
  vae?: string;
}

/** Samples in a picture at most: classes in turn. */
const MOST = 20;

/**
 * Draws a picture of samples, always of the same noise, so that one can be compared with the next.
 * @throws ArgumentError where the autoencoder has other latents
 */
export async function sampleGrid<M extends Prunable>({ sampleEvery, vae: name }: SampleGridJob, { shape, numClasses }: TrainingData, seed: number, context: JobContext): Promise<KeptOptions<M>['samples']> {
  if (sampleEvery === undefined) {
    if (name !== undefined) throw new ArgumentError('--vae', name, 'to be given with --sample-every');
    return undefined;
  }
  if (name === undefined && String(shape) !== '8,8,4') throw new ArgumentError('--sample-every', sampleEvery, `to come with --vae: the embedded autoencoder has latents of 8×8×4, the data of ${shape.join('×')}`);
  let vae: AutoencoderKL;
  if (name === undefined) vae = await loadAutoencoderKL(await loadAutoencoder());
  else {
    await using weights = await openWeights(name, context);
    vae = await loadReferenceAutoencoder(weightsOf(weights), { signal: context.signal, onProgress: context.onProgress });
  }
  if (vae.config.latentChannels !== shape[2]) throw new ArgumentError('--vae', name, `an autoencoder of latents with ${shape[2]} channels; this one has ${vae.config.latentChannels}`);
  const labels = Int32Array.from({ length: Math.min(MOST, 2 * numClasses) }, (_, i) => i % numClasses);
  return {
    every: sampleEvery,
    draw: async (model) => {
      const batches: tf.Tensor4D[] = [];
      try {
        for await (const images of sampleImages(model, vae, labels, { steps: 20, guidance: 2.5, seed, batchSize: 10, signal: context.signal })) batches.push(images);
        const all = tf.tidy(() => {
          const images = tf.concat(batches, 0) as tf.Tensor4D;
          return name === undefined ? cropCentre(images, 28) : images;
        });
        const png = await gridPng(all, { columns: 10, ...(name === undefined ? {} : { scale: 1, gap: 2 }) });
        all.dispose();
        const view = new DataView(png.buffer, png.byteOffset);
        return { png, width: view.getUint32(16), height: view.getUint32(20), channels: all.shape[3] };
      } finally {
        tf.dispose(batches);
      }
    },
  };
}

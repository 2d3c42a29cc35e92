import { ArgumentError, type LongTaskOptions, createRng, throwIfCancelled, torchCpu, torchCuda } from '@tinyfusion/core';
import { type LoadReferenceOptions, MAR, loadReference, loadReferenceAutoencoder, presets } from '@tinyfusion/models';
import { singleCollective } from '@tinyfusion/train';
import { weightsOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { type Shared, breathe } from '../loop.js';
import { type BatchShare, batchesInOrder } from '../shared-batches.js';
import { type SampleReferenceOptions, type Solver, referenceDenoisers, sampleReference, sampleReferenceWith } from '../sample-reference.js';
import { findStepSchedule, toldCalibration } from '../step-caching.js';
import { type AdapterChoice, withAdapters } from './adapter-files.js';
import { without } from './context.js';
import { rebuilt } from './rebuilt.js';
import { openWeights } from './weights-file.js';

/** Files and options that make a published model. */
export interface ReferenceModelOptions extends AdapterChoice {
  /** One of `presets`. */
  model?: string;
  /** A file, or a name of `knownCheckpoints`. */
  ckpt: string;
  /** Its attention heads, where it is as wide as no published one. */
  heads?: number;
  weights?: string;
  /** The autoencoder. Default: the one the model was trained with, `sd-vae-ft-ema` for DiT and SiT, `kl16` for MAR. */
  vae?: string;
  dtype?: 'F32' | 'F16' | 'I8' | 'I4';
}

/** How a published model draws. */
export interface DrawOptions extends LongTaskOptions, Shared, Pick<SampleReferenceOptions, 'onStep'> {
  rng?: 'philox' | 'torch-cuda' | 'torch-cpu';
  seed: number;
  steps?: number;
  solver?: Solver;
  cfg?: number;
  /** Images at once. */
  batch: number;
  /** Whether a step is recorded on WebGPU. Default `true`. */
  compile?: boolean;
  /** The largest relative error that leaving out blocks may bring; what was found is printed. Default: no block is left out. */
  stepCache?: number;
}

/** A published model with its autoencoder. */
export interface ReferenceModel {
  name: string;
  numClasses: number;
  /** Side of its images. */
  side: number;
  /**
   * Images in the order of the labels, in [-1, 1], the caller's: one `[1, H, W, 3]` after the other. Ranks of a collective draw a
   * batch each in turn, of a stream each, seeded `seed · ranks + rank` as the references' `sample_ddp.py`; all get all images,
   * in batches.
   */
  draw(labels: readonly number[], options: DrawOptions): AsyncGenerator<tf.Tensor4D, void, void>;
  dispose(): void;
}

/** Changes to the configuration of a model that has so many heads. */
export const withHeads = (name: string, heads: number | undefined): Pick<LoadReferenceOptions<string>, 'changes'> => (heads === undefined ? {} : { changes: name.includes('MAR-') ? { encoderHeads: heads, decoderHeads: heads } : { numHeads: heads } });

const streams = { philox: createRng, 'torch-cuda': torchCuda, 'torch-cpu': torchCpu };

/** Opens a model and its autoencoder from their files, fetching what is not here. @throws ArgumentError where one is not named, or they do not belong together */
export async function openReferenceModel({ model: name, ckpt, heads, weights, vae: vaeFile, dtype, lora }: ReferenceModelOptions, context: LongTaskOptions = {}): Promise<ReferenceModel> {
  if (name === undefined) throw new ArgumentError('--model', undefined, `the name of the checkpoint's model, one of ${presets.join(', ')}`);
  await using checkpoint = await openWeights(ckpt, context);
  const state = await withAdapters(rebuilt({ ...weightsOf(checkpoint, weights), metadata: checkpoint.metadata }), lora, context);
  const model = await loadReference(name, state, { ...withHeads(name, heads), dtype, ...context });
  const file = vaeFile ?? (model instanceof MAR ? 'kl16' : 'sd-vae-ft-ema');
  await using autoencoder = await openWeights(file, context);
  const vae = await loadReferenceAutoencoder(weightsOf(autoencoder), { signal: context.signal, onProgress: context.onProgress });
  const { inChannels, numClasses, inputSize } = model.config;
  if (vae.config.latentChannels !== inChannels) throw new ArgumentError('--vae', file, `an autoencoder of ${inChannels} latent channels; this one has ${vae.config.latentChannels}`);

  async function* draw(labels: readonly number[], { collective = singleCollective(), ...options }: DrawOptions): AsyncGenerator<tf.Tensor4D, void, void> {
    if (collective.size === 1) return yield* drawShare(labels, options, collective);
    const { batch, signal, onProgress } = options;
    const side = inputSize * vae.downsampling;
    // a batch's images travel together
    async function* whole(): AsyncGenerator<tf.Tensor4D, void, void> {
      let [images, at]: [tf.Tensor4D[], number] = [[], collective.rank * batch];
      try {
        for await (const image of drawShare(labels, { ...options, onProgress: without('decode', onProgress) }, collective)) {
          images.push(image);
          if (images.length < Math.min(batch, labels.length - at)) continue;
          yield tf.concat(images, 0) as tf.Tensor4D;
          tf.dispose(images);
          [images, at] = [[], at + collective.size * batch];
        }
      } finally {
        tf.dispose(images);
      }
    }
    yield* batchesInOrder(collective, whole(), { count: Math.ceil(labels.length / batch), total: labels.length, shape: [side, side, 3], task: 'decode', signal, onProgress });
  }

  async function* drawShare(labels: readonly number[], { rng: stream = 'torch-cuda', seed, steps, solver, cfg, batch, compile, stepCache, onStep, signal, onProgress }: Omit<DrawOptions, 'collective'>, share: BatchShare): AsyncGenerator<tf.Tensor4D, void, void> {
    const rng = streams[stream](share.size * seed + share.rank);
    const options = { ...(solver === undefined ? {} : { solver }), ...(steps === undefined ? {} : { steps }), ...(cfg === undefined ? {} : { guidance: cfg }), ...(onStep === undefined ? {} : { onStep }), compile, signal, onProgress };
    const { onStep: _, ...quiet } = options;
    const found = stepCache === undefined ? undefined : await findStepSchedule((caching) => sampleReference(model, labels.slice(0, 1), { ...quiet, ...caching, onProgress: undefined, rng: streams[stream](seed) }), { error: stepCache, signal, onProgress });
    if (found !== undefined && share.rank === 0) console.log(toldCalibration(found, stepCache!));
    const all = { ...options, ...(found?.chosen === undefined ? {} : { schedule: found.chosen.schedule }), rng };
    const denoisers = referenceDenoisers(model, all);
    try {
      for (let at = share.rank * batch; at < labels.length; at += share.size * batch) {
        const latents = await sampleReferenceWith(denoisers, model, labels.slice(at, at + batch), all);
        try {
          for (let i = 0; i < latents.shape[0]; i++) {
            throwIfCancelled(signal, 'decode');
            // one at a time: the autoencoder needs more memory than the transformer
            yield tf.tidy(() => vae.fromLatents(tf.slice(latents, [i, 0, 0, 0], [1, -1, -1, -1])));
            onProgress?.({ task: 'decode', step: at + i + 1, total: labels.length, unit: 'image' });
            await breathe();
          }
        } finally {
          latents.dispose();
        }
      }
    } finally {
      denoisers?.dispose();
    }
  }

  const dispose = (): void => {
    model.dispose();
    vae.dispose();
  };
  return { name, numClasses, side: inputSize * vae.downsampling, draw, dispose };
}

import { ArgumentError, createRng, throwIfCancelled, torchCpu, torchCuda } from '@tinyfusion/core';
import { fashionMnistClassNames, loadAutoencoder } from '@tinyfusion/fashion-mnist';
import { loadAutoencoderKL, loadReference, loadReferenceAutoencoder, presets } from '@tinyfusion/models';
import { weightsOf } from '@tinyfusion/weights';
import { openCheckpoint } from '@tinyfusion/weights/node';
import * as tf from '@tensorflow/tfjs-core';
import { cropCentre } from '../images.js';
import { breathe } from '../loop.js';
import { gridPng } from '../png.js';
import { sampleReference, type Solver } from '../sample-reference.js';
import { sampleImages } from '../sample.js';
import { type JobContext, loadModel, write } from './context.js';

/** Options of `tinyfusion sample`. */
export interface SampleJob {
  /** A checkpoint of ours, or with `ckpt` the name of a published model. */
  model?: string;
  ckpt?: string;
  weights?: string;
  vae?: string;
  rng: 'philox' | 'torch-cuda' | 'torch-cpu';
  classes?: number[];
  steps?: number;
  solver?: Solver;
  cfg?: number;
  seed: number;
  out: string;
}

/** Draws images and writes them as one picture. */
export async function sampleJob(job: SampleJob, context: JobContext): Promise<void> {
  if (job.ckpt !== undefined) return sampleReferenceJob(job, job.ckpt, context);
  if (job.model !== undefined && presets.includes(job.model)) throw new ArgumentError('--ckpt', undefined, `the file of ${job.model}'s weights (.pt, .safetensors or .npz)`);
  if (job.solver !== undefined && !isOwnSolver(job.solver)) throw new ArgumentError('--solver', job.solver, 'dpm, ddim or ddpm for this model');
  const { model } = await loadModel(job.model);
  const vae = await loadAutoencoderKL(await loadAutoencoder());
  const labels = job.classes ?? Array.from({ length: 2 * model.config.numClasses }, (_, i) => i % model.config.numClasses);
  const batches: tf.Tensor4D[] = [];
  for await (const images of sampleImages(model, vae, labels, { steps: job.steps ?? 20, solver: job.solver ?? 'dpm', guidance: job.cfg ?? 2.5, seed: job.seed, ...context })) batches.push(images);
  const all = tf.tidy(() => cropCentre(tf.concat(batches, 0), 28));
  await write(job.out, await gridPng(all, { columns: Math.min(10, labels.length) }));
  tf.dispose([all, ...batches]);
  console.log(`classes: ${[...new Set(labels)].map((l) => `${l} ${fashionMnistClassNames[l] ?? ''}`.trim()).join(', ')}`);
}

const isOwnSolver = (solver: Solver): solver is 'dpm' | 'ddim' | 'ddpm' => ['dpm', 'ddim', 'ddpm'].includes(solver);

/** The classes that DiT's `sample.py` shows. */
const shownClasses = [207, 360, 387, 974, 88, 979, 417, 279];

const streams = { philox: createRng, 'torch-cuda': torchCuda, 'torch-cpu': torchCpu };

/** Draws with the weights of a reference, as its `sample.py` does. */
async function sampleReferenceJob(job: SampleJob, path: string, context: JobContext): Promise<void> {
  if (job.model === undefined) throw new ArgumentError('--model', undefined, `the name of the checkpoint's model, one of ${presets.join(', ')}`);
  if (job.vae === undefined) throw new ArgumentError('--vae', undefined, 'the file of the autoencoder that turns latents into images: for DiT and SiT that of stabilityai/sd-vae-ft-ema, for MAR kl16.ckpt');
  await using checkpoint = await openCheckpoint(path);
  const model = await loadReference(job.model, weightsOf(checkpoint, job.weights));
  await using autoencoder = await openCheckpoint(job.vae);
  const vae = await loadReferenceAutoencoder(weightsOf(autoencoder));
  if (vae.config.latentChannels !== model.config.inChannels) throw new ArgumentError('--vae', job.vae, `an autoencoder of ${model.config.inChannels} latent channels; this one has ${vae.config.latentChannels}`);
  const labels = job.classes ?? shownClasses.filter((label) => label < model.config.numClasses);
  const options = { ...(job.solver === undefined ? {} : { solver: job.solver }), ...(job.steps === undefined ? {} : { steps: job.steps }), ...(job.cfg === undefined ? {} : { guidance: job.cfg }) };
  const latents = await sampleReference(model, labels, { ...options, rng: streams[job.rng](job.seed), ...context });
  const images: tf.Tensor4D[] = [];
  for (let i = 0; i < labels.length; i++) {
    throwIfCancelled(context.signal, 'decode');
    // one at a time: the autoencoder needs more memory than the transformer
    images.push(tf.tidy(() => vae.fromLatents(tf.slice(latents, [i, 0, 0, 0], [1, -1, -1, -1]))));
    context.onProgress?.({ task: 'decode', step: i + 1, total: labels.length, unit: 'image' });
    await breathe();
  }
  const all = tf.concat(images, 0);
  await write(job.out, await gridPng(all, { columns: 4, scale: 1, gap: 2 }));
  tf.dispose([latents, all, ...images]);
  for (const own of [model, vae]) own.dispose();
}

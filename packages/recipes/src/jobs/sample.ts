import { ArgumentError, createRng } from '@tinyfusion/core';
import { imagenetClasses, imagenetLabel } from '@tinyfusion/data/imagenet';
import { fashionMnistClassNames, loadAutoencoder } from '@tinyfusion/fashion-mnist';
import { MAR, SiT, type TinyAutoencoder, loadAutoencoderKL, loadTinyAutoencoder, presets } from '@tinyfusion/models';
import { singleCollective } from '@tinyfusion/train';
import { weightsOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { type ImageSink, folderSink, gridSink, npzSink } from '../image-sink.js';
import { cropCentre } from '../images.js';
import { gridPng } from '../png.js';
import type { Solver } from '../sample-reference.js';
import { sampleImages } from '../sample.js';
import { batchesInOrder } from '../shared-batches.js';
import { findStepSchedule, toldCalibration } from '../step-caching.js';
import type { AdapterChoice } from './adapter-files.js';
import { type JobContext, leads, loadModel, without, write } from './context.js';
import { openReferenceModel } from './reference-model.js';
import { openWeights } from './weights-file.js';

/** Options of `tinyfusion sample`. */
export interface SampleJob extends AdapterChoice {
  /** A checkpoint of ours, or with `ckpt` the name of a published model. */
  model?: string;
  ckpt?: string;
  /** With `ckpt`: attention heads of a model that is as wide as no published one. */
  heads?: number;
  /** Which weights of a training checkpoint. */
  weights?: string;
  vae?: string;
  /** TAESD's weights: what is being drawn is shown now and then beside `out`. */
  preview?: string;
  /** Default: `torch-cuda` with `ckpt`, as the references draw, else `philox`. */
  rng?: 'philox' | 'torch-cuda' | 'torch-cpu';
  /** How weights are held on the device. Default `'F32'`. */
  dtype?: 'F32' | 'F16' | 'I8' | 'I4';
  /** Numbers, or with `ckpt` names of ImageNet's. */
  classes?: readonly string[];
  /** How many images, of random classes or of `classes` in turn. Default: one a class named, and without names each class twice, with `ckpt` eight classes. */
  count?: number;
  /** Images at once. Default 32; with `ckpt` and no `count` all. */
  batch?: number;
  steps?: number;
  solver?: Solver;
  cfg?: number;
  /** The largest relative error that leaving out blocks on some steps may bring. Default: none is left out. */
  stepCache?: number;
  /** Whether a step is recorded on WebGPU, see `SampleOptions`. Default `true`. */
  compile?: boolean;
  seed: number;
  /** A `.png` for one picture, an `.npz` for evaluation, else a folder of PNGs. */
  out: string;
}

/** Draws images, and writes them as one picture, an archive, or a folder. */
export async function sampleJob(job: SampleJob, context: JobContext): Promise<void> {
  if (job.ckpt !== undefined) return sampleReferenceJob(job, job.ckpt, context);
  if (job.model !== undefined && presets.includes(job.model)) throw new ArgumentError('--ckpt', undefined, `the file of ${job.model}'s weights (.pt, .safetensors or .npz)`);
  for (const [option, why] of [['rng', 'this model has noise of its own for each image'], ['preview', 'it shows latents of Stable Diffusion, and this model has others'], ['vae', 'this model draws latents of the embedded autoencoder'], ['weights', 'a checkpoint of ours holds one set'], ['heads', 'a checkpoint of ours says how many it has']] as const) if (job[option] !== undefined) throw new ArgumentError(`--${option}`, job[option], `to be given with --ckpt; ${why}`);
  await sinkFor(job.out).check();
  const { model } = await loadModel(job.model, { dtype: job.dtype, lora: job.lora, ...context });
  if (job.solver !== undefined && (model instanceof SiT || model instanceof MAR)) throw new ArgumentError('--solver', job.solver, 'to be left out: this model is sampled in one way here');
  if (job.solver !== undefined && !isOwnSolver(job.solver)) throw new ArgumentError('--solver', job.solver, 'dpm, ddim or ddpm for this model');
  if (job.stepCache !== undefined && model instanceof MAR) throw new ArgumentError('--step-cache', job.stepCache, 'to be left out: a MAR has other tokens at every step');
  const vae = await loadAutoencoderKL(await loadAutoencoder());
  const { numClasses } = model.config;
  const named = job.classes?.map((text) => labelOf(text, numClasses));
  const labels = labelsFor(job, named ?? (job.count === undefined ? Array.from({ length: 2 * numClasses }, (_, i) => i % numClasses) : []), numClasses);
  await sinkFor(job.out).check(labels.length);
  const { collective = singleCollective() } = context;
  // every rank has something to draw
  const batchSize = job.batch ?? Math.min(32, Math.ceil(labels.length / collective.size));
  const options = { steps: job.steps ?? 20, solver: job.solver ?? 'dpm', guidance: job.cfg ?? 2.5, seed: job.seed, batchSize, compile: job.compile, ...context } as const;
  const found = job.stepCache === undefined ? undefined : await findStepSchedule((caching) => firstOf(sampleImages(model, vae, labels.slice(0, 1), { ...options, ...caching, onProgress: undefined })), { error: job.stepCache, ...context });
  if (found !== undefined && leads(context)) console.log(toldCalibration(found, job.stepCache!));
  const sink = leads(context) ? sinkFor(job.out, { columns: Math.min(10, labels.length) }) : undefined;
  const side = model.config.inputSize * vae.downsampling;
  try {
    let at = 0;
    const drawn = sampleImages(model, vae, labels, { ...options, onProgress: collective.size === 1 ? context.onProgress : without('sample', context.onProgress), share: collective, ...(found?.chosen === undefined ? {} : { schedule: found.chosen.schedule }) });
    for await (const images of collective.size === 1 ? drawn : batchesInOrder(collective, drawn, { count: Math.ceil(labels.length / batchSize), total: labels.length, shape: [side, side, vae.config.inChannels], task: 'sample', ...context })) {
      const shown = cropCentre(images, 28);
      await sink?.add(shown, labels.slice(at, (at += images.shape[0])));
      tf.dispose([images, shown]);
    }
    if (sink !== undefined) console.log(`wrote ${await sink.finish()}`);
  } catch (error) {
    await sink?.abandon();
    throw error;
  }
  if (!leads(context)) return;
  if (named !== undefined || job.count === undefined) console.log(`classes: ${[...new Set(labels)].map((l) => `${l} ${fashionMnistClassNames[l] ?? ''}`.trim()).join(', ')}`);
}

const isOwnSolver = (solver: Solver): solver is 'dpm' | 'ddim' | 'ddpm' => ['dpm', 'ddim', 'ddpm'].includes(solver);

/** The classes that DiT's `sample.py` shows. */
const shownClasses = [207, 360, 387, 974, 88, 979, 417, 279];

/** The same, or the first ones of a model of other classes. */
const shownOf = (numClasses: number): number[] => (numClasses === imagenetClasses.length ? shownClasses : Array.from({ length: Math.min(8, numClasses) }, (_, label) => label));

/** Draws with the weights of a reference, as its `sample.py` does. */
async function sampleReferenceJob(job: SampleJob, path: string, context: JobContext): Promise<void> {
  if (job.preview !== undefined && job.model?.includes('DiT') === false) throw new ArgumentError('--preview', job.preview, `to be left out: the steps of ${job.model} cannot be shown, those of a DiT can`);
  // torchvision's save_image: two black pixels between and around images
  const sink = sinkFor(job.out, { columns: 4, scale: 1, gap: 2, border: 2 });
  await sink.check();
  const model = await openReferenceModel({ ...job, ckpt: path }, context);
  const preview = job.preview === undefined || !leads(context) ? undefined : await Preview.open(job.preview, `${job.out.replace(/\.\w+$/, '')}.preview.png`, context);
  const { numClasses } = model;
  const named = job.classes?.map((text) => labelOf(text, numClasses)) ?? (job.count === undefined ? shownOf(numClasses) : undefined);
  const labels = labelsFor(job, named ?? [], numClasses);
  try {
    await sink.check(labels.length);
    let at = 0;
    const batch = job.batch ?? (job.count === undefined ? Math.ceil(labels.length / (context.collective?.size ?? 1)) : 32);
    for await (const images of model.draw(labels, { ...job, batch, ...context, ...(preview === undefined ? {} : { onStep: (step) => preview.show(step) }) })) {
      if (leads(context)) await sink.add(images, labels.slice(at, (at += images.shape[0])));
      images.dispose();
    }
    if (leads(context)) console.log(`wrote ${await sink.finish()}`);
    await preview?.close();
  } catch (error) {
    await sink.abandon();
    throw error;
  } finally {
    model.dispose();
  }
  if (leads(context) && named !== undefined && numClasses === imagenetClasses.length) console.log(`classes: ${[...new Set(labels)].map((l) => `${l} ${imagenetClasses[l]!.split(',')[0]}`).join(', ')}`);
}

/** A picture of what is being drawn, through TAESD, every tenth of the way. */
class Preview {
  #last: Promise<void> = Promise.resolve();

  private constructor(
    readonly tiny: TinyAutoencoder,
    readonly path: string,
  ) {}

  static async open(file: string, path: string, context: JobContext): Promise<Preview> {
    await using checkpoint = await openWeights(file, context);
    return new Preview(await loadTinyAutoencoder(weightsOf(checkpoint)), path);
  }

  /** @param step of a sampler: its idea of the end result is shown */
  show({ step, total, xStart }: { step: number; total: number; xStart: tf.Tensor }): void {
    if (step % Math.max(1, Math.floor(total / 10)) !== 0) return;
    if (xStart.shape[3] !== 4) throw new ArgumentError('--preview', 'TAESD', 'a model of Stable Diffusion’s latents, of 4 channels');
    const images = this.tiny.fromLatents(tf.clipByValue(xStart, -10, 10) as tf.Tensor4D);
    this.#last = this.#last.then(async () => {
      const png = await gridPng(images, { columns: 4, scale: 1, gap: 2, border: 2 });
      images.dispose();
      await write(this.path, png);
    });
    this.#last.catch(() => {}); // told at the end
  }

  async close(): Promise<void> {
    await this.#last;
    this.tiny.dispose();
  }
}

function sinkFor(out: string, grid: Parameters<typeof gridSink>[1] = {}): ImageSink {
  if (out.endsWith('.png')) return gridSink(out, grid);
  if (out.endsWith('.npz')) return npzSink(out);
  if (/\.\w{2,4}$/.test(out)) throw new ArgumentError('--out', out, 'a .png, an .npz, or a folder');
  return folderSink(out);
}

function labelOf(text: string, numClasses: number): number {
  const label = numClasses === imagenetClasses.length ? imagenetLabel(text) : text.trim() === '' ? Number.NaN : Number(text);
  if (!Number.isInteger(label) || label < 0 || label >= numClasses) throw new ArgumentError('labels', Number.isNaN(label) ? text : label, `integers from 0 to ${numClasses - 1}`);
  return label;
}

async function firstOf<T>(items: AsyncIterable<T>): Promise<T> {
  for await (const item of items) return item;
  throw new ArgumentError('sample', 'no image', 'one at least');
}

/** The classes of all images: those named in turn, or random ones of a stream of their own. */
export function labelsFor({ count, seed }: Pick<SampleJob, 'count' | 'seed'>, named: readonly number[], numClasses: number): number[] {
  if (count === undefined) return [...named];
  if (named.length > 0) return Array.from({ length: count }, (_, i) => named[i % named.length]!);
  return [...createRng(seed).split('labels').integers(0, numClasses, count)];
}

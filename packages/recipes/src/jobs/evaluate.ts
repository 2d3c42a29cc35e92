import { ArgumentError, type LongTaskOptions } from '@tinyfusion/core';
import { type FeatureNetwork, Inception, dinov2Features, loadDinoV2, openInceptionWeights } from '@tinyfusion/eval';
import { loadAutoencoder, loadFashionMnist } from '@tinyfusion/fashion-mnist';
import { loadAutoencoderKL } from '@tinyfusion/models';
import { stateDictHash, weightsOf } from '@tinyfusion/weights';
import { checkWritable } from '@tinyfusion/weights/node';
import { type Metric, evaluateImages } from '../evaluate-images.js';
import { evaluateModel, referenceFeatures } from '../evaluate.js';
import { type ImageSource, drawnSource } from '../image-source.js';
import type { Solver } from '../sample-reference.js';
import { alone, embeddedNetwork, type JobContext, leads, loadModel, write } from './context.js';
import { openReferenceModel } from './reference-model.js';
import { labelsFor } from './sample.js';
import { openReference, openSamples } from './sets.js';
import { openFile, openWeights } from './weights-file.js';

/** Options of `tinyfusion evaluate`. */
export interface EvaluateJob {
  /** Weights of FID's Inception. Default: the published ones, fetched. */
  inception?: string;
  /** Weights of DINOv2, in Inception's place. */
  dinov2?: string;
  metrics?: readonly Metric[];
  skipBroken?: boolean;
  /** A checkpoint of ours, or with `ckpt` the name of a published model. */
  model?: string;
  ckpt?: string;
  /** With `ckpt`: attention heads of a model that is as wide as no published one. */
  heads?: number;
  weights?: string;
  vae?: string;
  dtype?: 'F32' | 'F16' | 'I8' | 'I4';
  rng?: 'philox' | 'torch-cuda' | 'torch-cpu';
  solver?: Solver;
  samples?: number;
  batch?: number;
  steps?: number;
  cfg?: number;
  /** Whether a step is recorded on WebGPU, see `SampleOptions`. Default `true`. */
  compile?: boolean;
  seed: number;
  json?: string;
}

/**
 * Measures samples against a reference as ADM's evaluator does. Both may be archives, folders of images, or saved
 * statistics (the reference alone); without samples a published model draws them while they are measured.
 */
export async function evaluateImagesJob(referencePath: string, samplesPath: string | undefined, job: EvaluateJob, context: JobContext): Promise<void> {
  if (job.json !== undefined) await checkWritable(job.json);
  const options = { skipBroken: job.skipBroken, signal: alone(context) };
  if (samplesPath === undefined && job.ckpt === undefined) throw new ArgumentError('samples', undefined, 'an .npz or a folder of images that is measured against the reference, or --ckpt with the weights of a model that draws them');
  await using reference = await openReference(referencePath, options, context);
  await using files = samplesPath === undefined ? undefined : await openSamples(samplesPath, options);
  const network = await openNetwork(job, context);
  await using drawn = files === undefined ? await drawnSamples(job, context) : undefined;
  const samples = (files ?? drawn)!;
  const { warnings, ...numbers } = await evaluateImages(network.network, reference, samples, { metrics: job.metrics, batchSize: job.batch, seed: job.seed, ...context });
  network.dispose();
  if (!leads(context)) return;
  console.log(JSON.stringify(numbers, null, 2));
  for (const warning of warnings) console.error(`note: ${warning}`);
  if (job.json !== undefined) await write(job.json, JSON.stringify({ ...numbers, warnings, command: context.command }, null, 2));
}

/** The feature network of the options: DINOv2 where it is named, else FID's Inception. */
export async function openNetwork({ inception = 'inception', dinov2 }: Pick<EvaluateJob, 'inception' | 'dinov2'>, context: LongTaskOptions): Promise<{ network: Inception | FeatureNetwork; dispose: () => void }> {
  if (dinov2 !== undefined) {
    await using weights = await openWeights(dinov2, context);
    const state = weightsOf(weights);
    const net = await loadDinoV2(state);
    return { network: dinov2Features(net, { version: await stateDictHash(state) }), dispose: () => net.dispose() };
  }
  await using source = await openFile(inception, context);
  const net = await Inception.load(await openInceptionWeights(source));
  return { network: net, dispose: () => net.dispose() };
}

/** What a published model draws, as samples. */
async function drawnSamples(job: EvaluateJob, context: JobContext): Promise<ImageSource & AsyncDisposable> {
  const model = await openReferenceModel({ ...job, ckpt: job.ckpt! }, context);
  const labels = labelsFor({ count: job.samples ?? 50_000, seed: job.seed }, [], model.numClasses);
  // DiT's protocol for measuring: 250 steps, guidance 1.5
  const draw = () => model.draw(labels, { cfg: 1.5, ...job, batch: job.batch ?? 32, ...context });
  return { ...drawnSource(`${model.name} of ${job.ckpt}`, labels.length, model.side, draw), [Symbol.asyncDispose]: async () => model.dispose() };
}

/** Measures a model against the embedded test images. */
export async function evaluateJob({ model: path, samples = 2000, batch, steps = 20, cfg = 1.5, compile, seed, json }: EvaluateJob, context: JobContext): Promise<void> {
  if (json !== undefined) await checkWritable(json);
  const { model, name } = await loadModel(path, context);
  const [vae, network] = [await loadAutoencoderKL(await loadAutoencoder()), await embeddedNetwork()];
  const real = await referenceFeatures(network, await loadFashionMnist('test'), 10_000, context);
  // every rank has something to draw
  const batchSize = batch ?? Math.min(64, Math.ceil(samples / (context.collective?.size ?? 1)));
  const numbers = await evaluateModel(model, vae, network, real, { count: samples, steps, guidance: cfg, seed, compile, batchSize, ...context });
  if (!leads(context)) return;
  const { warnings, ...shown } = numbers;
  console.log(JSON.stringify({ model: name, ...shown }, null, 2));
  for (const warning of warnings) console.error(`note: ${warning}`);
  if (json !== undefined) await write(json, JSON.stringify({ model: name, ...numbers, seed, steps, cfg, command: context.command }, null, 2));
}

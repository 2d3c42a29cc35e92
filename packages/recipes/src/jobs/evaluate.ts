import { ArgumentError } from '@tinyfusion/core';
import { Inception } from '@tinyfusion/eval';
import { loadAutoencoder, loadFashionMnist } from '@tinyfusion/fashion-mnist';
import { loadAutoencoderKL } from '@tinyfusion/models';
import { weightsOf } from '@tinyfusion/weights';
import { openCheckpoint } from '@tinyfusion/weights/node';
import { basename } from 'node:path';
import { evaluateImages, imageSet } from '../evaluate-images.js';
import { evaluateModel, referenceFeatures } from '../evaluate.js';
import { embeddedNetwork, type JobContext, loadModel, write } from './context.js';

/** Options of `tinyfusion evaluate`. */
export interface EvaluateJob {
  inception?: string;
  model?: string;
  samples: number;
  steps: number;
  cfg: number;
  seed: number;
  json?: string;
}

/** Measures samples against a reference as ADM's evaluator does, on the features of FID's Inception. */
export async function evaluateImagesJob(reference: string, samples: string, { inception, json }: Pick<EvaluateJob, 'inception' | 'json'>, context: JobContext): Promise<void> {
  if (inception === undefined) throw new ArgumentError('--inception', undefined, "the weights of FID's Inception, pt_inception-2015-12-05 (.pth or .safetensors), as torch-fidelity and pytorch-fid publish them");
  await using weights = await openCheckpoint(inception);
  await using real = await openCheckpoint(reference);
  await using generated = await openCheckpoint(samples);
  const sets = [await imageSet(real, basename(reference)), await imageSet(generated, basename(samples))] as const;
  const net = await Inception.load(weightsOf(weights));
  const { warnings, ...numbers } = await evaluateImages(net, ...sets, context);
  net.dispose();
  console.log(JSON.stringify(numbers, null, 2));
  for (const warning of warnings) console.error(`note: ${warning}`);
  if (json !== undefined) await write(json, JSON.stringify({ ...numbers, warnings, command: context.command }, null, 2));
}

/** Measures a model against the embedded test images. */
export async function evaluateJob(job: EvaluateJob, context: JobContext): Promise<void> {
  const { model, name } = await loadModel(job.model);
  const [vae, network] = [await loadAutoencoderKL(await loadAutoencoder()), await embeddedNetwork()];
  const real = await referenceFeatures(network, await loadFashionMnist('test'), 10_000, context);
  const numbers = await evaluateModel(model, vae, network, real, { count: job.samples, steps: job.steps, guidance: job.cfg, seed: job.seed, ...context });
  const { warnings, ...shown } = numbers;
  console.log(JSON.stringify({ model: name, ...shown }, null, 2));
  for (const warning of warnings) console.error(`note: ${warning}`);
  if (job.json !== undefined) await write(job.json, JSON.stringify({ model: name, ...numbers, seed: job.seed, steps: job.steps, cfg: job.cfg, command: context.command }, null, 2));
}

import { ArgumentError, type LongTaskOptions, type OnProgress, concatenate } from '@tinyfusion/core';
import { type ImageDataset, paddedImages } from '@tinyfusion/data';
import { type Evaluation, type ExtractedFeatures, type FeatureNetwork, evaluate, extractFeatures } from '@tinyfusion/eval';
import type { AutoencoderKL } from '@tinyfusion/models';
import { type Collective, allGather, singleCollective } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { checkCount } from './check-options.js';
import { cropCentre } from './images.js';
import type { Shared } from './loop.js';
import type { Prunable } from './objective.js';
import { type SampleOptions, sampleImages } from './sample.js';

/** Images of a pass over real images. */
const PASS = 250;

/** Features of the first `count` images of a data set, at their own size. Ranks of a collective extract a share each, and all get the whole. */
export async function referenceFeatures(network: FeatureNetwork, data: ImageDataset, count: number, { collective = singleCollective(), signal, onProgress }: LongTaskOptions & Shared = {}): Promise<ExtractedFeatures> {
  const total = Math.min(count, data.labels.length);
  refuseIdle(collective, Math.ceil(total / PASS), 'real images');
  function* batches(): Generator<tf.Tensor4D> {
    for (let at = collective.rank * PASS; at < total; at += collective.size * PASS) {
      const indices = Array.from({ length: Math.min(PASS, total - at) }, (_, i) => at + i);
      yield tf.tensor4d(paddedImages(data, indices, network.inputSize), [indices.length, network.inputSize, network.inputSize, data.channels]);
    }
  }
  // ranks go at the same pace
  const ofAll: OnProgress | undefined = onProgress && ((event) => onProgress({ ...event, step: Math.min(total, event.step * collective.size) }));
  return gathered(collective, await extractFeatures(network, batches(), { signal, onProgress: ofAll, total }), network, PASS);
}

/** @throws ArgumentError where there are more ranks than batches */
function refuseIdle({ size }: Collective, batches: number, what: string): void {
  if (batches < size) throw new ArgumentError('the number of processes or threads', size, `at most ${batches}, one for each batch of ${what}; or smaller batches`);
}

/** The features of all ranks in the order of the images, of which every rank had every `size`-th batch. */
async function gathered(collective: Collective, own: ExtractedFeatures, { dimension, classes }: FeatureNetwork, batchSize: number): Promise<ExtractedFeatures> {
  if (collective.size === 1) return own;
  const [features, logits] = [await allGather(collective, own.features), await allGather(collective, own.logits)];
  const inOrder = (parts: readonly Float32Array[], width: number): Float32Array => {
    const step = batchSize * width;
    const rounds = width === 0 ? 0 : Math.ceil(parts[0]!.length / step);
    return concatenate(Array.from({ length: rounds }, (_, round) => parts.map((part) => part.subarray(round * step, (round + 1) * step))).flat());
  };
  const count = features.reduce((sum, part) => sum + part.length, 0) / dimension;
  return { ...own, count, features: inOrder(features, dimension), logits: inOrder(logits, classes), provenance: { ...own.provenance, images: count } };
}

/** What {@link evaluateModel} measures. */
export interface ModelEvaluation extends Evaluation {
  /** Share of samples whose asked-for class the feature network finds most likely, in [0, 1]. */
  agreement: number;
  /** Samples drawn and decoded in a second. */
  imagesPerSecond: number;
}

export interface EvaluateModelOptions extends SampleOptions, Shared {
  /** Samples, classes in turn. */
  count: number;
}

/**
 * Draws samples with classes in turn and compares them with real features. Ranks of a collective draw a share of the batches
 * each, and all get the numbers, which are those of one process.
 */
export async function evaluateModel(model: Prunable, vae: AutoencoderKL, network: FeatureNetwork, real: ExtractedFeatures, { count, collective = singleCollective(), batchSize = 64, ...options }: EvaluateModelOptions): Promise<ModelEvaluation> {
  checkCount('count', count);
  checkCount('batchSize', batchSize);
  refuseIdle(collective, Math.ceil(count / batchSize), 'samples');
  const labels = Int32Array.from({ length: count }, (_, i) => i % model.config.numClasses);
  let seconds = 0;
  async function* cropped(): AsyncGenerator<tf.Tensor4D> {
    const run = sampleImages(model, vae, labels, { ...options, batchSize, share: collective });
    for (;;) {
      const from = performance.now();
      const { value: images } = await run.next();
      if (images === undefined) return;
      await finished(images);
      seconds += (performance.now() - from) / 1000;
      const inner = cropCentre(images, network.inputSize);
      images.dispose();
      yield inner;
    }
  }
  const started = performance.now();
  const generated = await gathered(collective, await extractFeatures(network, cropped(), { total: count, signal: options.signal }), network, batchSize);
  if (collective.size > 1) seconds = (performance.now() - started) / 1000;
  const { classes } = network;
  let right = 0;
  for (let i = 0; i < count; i++) {
    const row = generated.logits.subarray(i * classes, (i + 1) * classes);
    if (row.indexOf(row.reduce((a, b) => Math.max(a, b))) === labels[i]) right++;
  }
  return { ...(await evaluate(network, generated, real, { signal: options.signal })), agreement: right / count, imagesPerSecond: count / seconds };
}

/** Waits until the device has computed a tensor. */
async function finished(x: tf.Tensor): Promise<void> {
  const probe = tf.max(x);
  await probe.data();
  probe.dispose();
}

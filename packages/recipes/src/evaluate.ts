import type { LongTaskOptions } from '@tinyfusion/core';
import { type ImageDataset, paddedImages } from '@tinyfusion/data';
import { type Evaluation, type ExtractedFeatures, type FeatureNetwork, evaluate, extractFeatures } from '@tinyfusion/eval';
import type { AutoencoderKL } from '@tinyfusion/models';
import * as tf from '@tensorflow/tfjs-core';
import { cropCentre } from './images.js';
import type { Prunable } from './objective.js';
import { type SampleOptions, sampleImages } from './sample.js';

/** Features of the first `count` images of a data set, at their own size. */
export function referenceFeatures(network: FeatureNetwork, data: ImageDataset, count: number, options: LongTaskOptions = {}): Promise<ExtractedFeatures> {
  const total = Math.min(count, data.labels.length);
  function* batches(): Generator<tf.Tensor4D> {
    for (let at = 0; at < total; at += 250) {
      const indices = Array.from({ length: Math.min(250, total - at) }, (_, i) => at + i);
      yield tf.tensor4d(paddedImages(data, indices, network.inputSize), [indices.length, network.inputSize, network.inputSize, data.channels]);
    }
  }
  return extractFeatures(network, batches(), { ...options, total });
}

/** What {@link evaluateModel} measures. */
export interface ModelEvaluation extends Evaluation {
  /** Share of samples whose asked-for class the feature network finds most likely, in [0, 1]. */
  agreement: number;
  /** Samples drawn and decoded in a second. */
  imagesPerSecond: number;
}

export interface EvaluateModelOptions extends SampleOptions {
  /** Samples, classes in turn. */
  count: number;
}

/** Draws samples with classes in turn and compares them with real features. */
export async function evaluateModel(model: Prunable, vae: AutoencoderKL, network: FeatureNetwork, real: ExtractedFeatures, { count, ...options }: EvaluateModelOptions): Promise<ModelEvaluation> {
  const labels = Int32Array.from({ length: count }, (_, i) => i % model.config.numClasses);
  let seconds = 0;
  async function* cropped(): AsyncGenerator<tf.Tensor4D> {
    const run = sampleImages(model, vae, labels, options);
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
  const generated = await extractFeatures(network, cropped(), { total: count, signal: options.signal });
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

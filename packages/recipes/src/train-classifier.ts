import { type LongTaskOptions, createRng, throwIfCancelled } from '@tinyfusion/core';
import { type ImageDataset, shuffledBatches } from '@tinyfusion/data';
import { ConvClassifier, type ConvClassifierConfig } from '@tinyfusion/eval';
import { AdamW, cosine, withWarmUp } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { checkPositive } from './check-options.js';
import { imageTensor } from './images.js';
import { breathe, optimise } from './loop.js';

/**
 * Trains the classifier whose features the evaluation uses where images are too small for Inception.
 *
 * Command: `tinyfusion train-classifier --data <idx folder>`.
 * Cost: about 6 minutes on one core for 2,500 steps of 128 images.
 */

/** For 28×28 grey images of ten classes. */
export const fashionClassifier: ConvClassifierConfig = { inputSize: 28, inChannels: 1, width: 24, features: 64, numClasses: 10 };

export interface TrainClassifierOptions extends LongTaskOptions {
  config?: ConvClassifierConfig;
  /** Default 2500. */
  steps?: number;
  /** Default 128. */
  batchSize?: number;
  /** Peak learning rate after 100 steps of warm-up; a cosine takes it to a hundredth. Default 3e-3. */
  lr?: number;
  /** Share of each target spread over all classes, which keeps features apart instead of logits large. Default 0.05. */
  labelSmoothing?: number;
  seed: number;
}

/** Cross entropy on images that are mirrored half the time. */
export async function trainClassifier(data: ImageDataset, options: TrainClassifierOptions): Promise<ConvClassifier> {
  const { config = fashionClassifier, steps = 2500, batchSize = 128, lr = 3e-3, labelSmoothing = 0.05, seed, signal, onProgress } = options;
  checkPositive('lr', lr);
  const rng = createRng(seed);
  const batches = shuffledBatches(data.labels.length, batchSize, rng.split('data'));
  const classifier = new ConvClassifier(config, { init: rng.split('weights') });
  const flips = rng.split('flips');
  const parameters = classifier.parameters();
  const optimizer = new AdamW(parameters, { weightDecay: 0.01 });
  try {
    await optimise(
      (_, report) => {
        const indices = batches.next();
        const plain = imageTensor(data, indices, config.inputSize);
        const images = flips.uniform(1)[0]! < 0.5 ? tf.reverse(plain, 2) : plain;
        const labels = tf.tensor1d(Int32Array.from(indices, (i) => data.labels[i]!), 'int32');
        const oneHot = tf.cast(tf.oneHot(labels, config.numClasses), 'float32');
        const targets = tf.add(tf.mul(oneHot, 1 - labelSmoothing), labelSmoothing / config.numClasses);
        const { logits } = classifier.forward(images);
        const logProbabilities = tf.sub(logits, tf.logSumExp(logits, 1, true));
        report('accuracy', tf.mean(tf.sum(tf.mul(oneHot, tf.cast(tf.equal(logits, tf.max(logits, 1, true)), 'float32')), 1)) as tf.Scalar);
        return tf.neg(tf.mean(tf.sum(tf.mul(targets, logProbabilities), 1))) as tf.Scalar;
      },
      { task: 'train classifier', steps, maxNorm: 5, groups: [{ parameters, optimizer, lr: withWarmUp(cosine({ from: lr, to: lr / 100, steps }), 100) }], signal, onProgress },
    );
  } catch (error) {
    classifier.dispose();
    throw error;
  } finally {
    optimizer.dispose();
  }
  return classifier;
}

/** Share of images whose most likely class is their label. */
export async function classifierAccuracy(classifier: ConvClassifier, data: ImageDataset, { signal, onProgress }: LongTaskOptions = {}): Promise<number> {
  const count = data.labels.length;
  let right = 0;
  for (let at = 0; at < count; at += 500) {
    throwIfCancelled(signal, 'classify');
    const indices = Int32Array.from({ length: Math.min(500, count - at) }, (_, i) => at + i);
    const best = tf.tidy(() => tf.argMax(classifier.forward(imageTensor(data, indices, classifier.config.inputSize)).logits, 1));
    const classes = await best.data();
    best.dispose();
    for (const [i, index] of indices.entries()) if (classes[i] === data.labels[index]) right++;
    onProgress?.({ task: 'classify', step: Math.min(count, at + 500), total: count, unit: 'image' });
    await breathe();
  }
  return right / count;
}

// Our models as contestants have them.
import * as tf from '@tensorflow/tfjs-core';
import { DiT } from '@tinyfusion/models';
import { deviationOf, ditInputs, fill } from './numbers.mjs';

/** A DiT with the numbers that every contestant has, and its inputs. */
export function ditOf(work) {
  const { width, depth, heads, size, batch, classes = 1000 } = work;
  const dit = new DiT({ inputSize: size, patchSize: 2, inChannels: 4, hiddenSize: width, depth, numHeads: heads, mlpRatio: 4, classDropoutProb: 0.1, numClasses: classes, learnSigma: true }, { init: 'zeros' });
  filled(dit);
  const { x, t, y } = ditInputs(work);
  return { dit, x: tf.tensor4d(x, [batch, size, size, 4]), t: tf.tensor1d(t), y: tf.tensor1d(y, 'int32') };
}

/** The module, with those numbers. */
export function filled(module) {
  for (const [name, p] of module.namedParameters()) {
    const value = tf.tensor(fill(name, p.size, deviationOf(p.shape)), p.shape);
    p.assign(value);
    value.dispose();
  }
  return module;
}

/** Stable Diffusion's autoencoder. */
export const vaeConfig = { inChannels: 3, channels: 128, channelMultipliers: [1, 2, 4, 4], numResBlocks: 2, latentChannels: 4, groups: 32, scalingFactor: 0.18215 };

import { type LongTaskOptions, createRng } from '@tinyfusion/core';
import { type ImageDataset, shuffledBatches } from '@tinyfusion/data';
import { stopGradient } from '@tinyfusion/kernels';
import { AutoencoderKL, type AutoencoderConfig, posteriorKL, samplePosterior } from '@tinyfusion/models';
import { randomNormal } from '@tinyfusion/nn';
import { AdamW, cosine, withWarmUp } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { checkPositive } from './check-options.js';
import { imageTensor } from './images.js';
import { optimise } from './loop.js';

/**
 * Trains the autoencoder whose latents the transformers live in.
 *
 * Command: `tinyfusion train-autoencoder --data <idx folder>`.
 * Cost: about 13 minutes on one core for 1,000 steps of 32 images.
 */

/** A small autoencoder for 28×28 grey images, padded to 32×32: latents 8×8×4. */
export const fashionAutoencoder: AutoencoderConfig = { inChannels: 1, channels: 16, channelMultipliers: [1, 2, 4], numResBlocks: 1, latentChannels: 4, groups: 8, scalingFactor: 1 };

export interface TrainAutoencoderOptions extends LongTaskOptions {
  config?: AutoencoderConfig;
  /** Default 1000. */
  steps?: number;
  /** Default 32. */
  batchSize?: number;
  /** Peak learning rate, after 50 steps of warm-up; a cosine takes it to a twentieth. Default 2e-3. */
  lr?: number;
  /** Weight of the mean KL divergence a latent value, against the mean absolute error a pixel. Default 1e-3. */
  klWeight?: number;
  seed: number;
}

/** Returns the autoencoder with `scalingFactor` set so that latents have unit variance on the training images. */
export async function trainAutoencoder(data: ImageDataset, options: TrainAutoencoderOptions): Promise<AutoencoderKL> {
  const { config = fashionAutoencoder, steps = 1000, batchSize = 32, lr = 2e-3, klWeight = 1e-3, seed, signal, onProgress } = options;
  checkPositive('lr', lr);
  const rng = createRng(seed);
  const noise = rng.split('posterior');
  const batches = shuffledBatches(data.labels.length, batchSize, rng.split('data'));
  const vae = new AutoencoderKL(config, { init: rng.split('weights') });
  const parameters = vae.parameters();
  const optimizer = new AdamW(parameters);
  try {
    await optimise(
      (_, report) => {
        const x = imageTensor(data, batches.next());
        const { mean, logVariance } = vae.encode(x);
        const z = samplePosterior(mean, logVariance, randomNormal<tf.Rank.R4>(noise, mean.shape));
        const error = tf.mean(tf.abs(tf.sub(vae.decode(z), x))) as tf.Scalar;
        const kl = tf.div(tf.mean(posteriorKL(mean, logVariance)), mean.size / mean.shape[0]) as tf.Scalar;
        report('error', error);
        report('kl', kl);
        return tf.add(error, tf.mul(kl, klWeight));
      },
      { task: 'train autoencoder', steps, groups: [{ parameters, optimizer, lr: withWarmUp(cosine({ from: lr, to: lr / 20, steps }), 50) }], signal, onProgress },
    );
  } catch (error) {
    vae.dispose();
    throw error;
  } finally {
    optimizer.dispose();
  }
  return withUnitVariance(vae, data);
}

/** Options of {@link refineDecoder}. */
export interface RefineDecoderOptions extends LongTaskOptions {
  /** Default 1500. */
  steps?: number;
  /** Default 32. */
  batchSize?: number;
  /** Peak learning rate after 50 steps of warm-up; a cosine takes it to a hundredth. Default 1e-3. */
  lr?: number;
  /** Deviation of the noise added to latents of unit variance, which transformers do not hit exactly. Default 0.05. */
  noise?: number;
  seed: number;
}

/**
 * Trains the decoder alone, on the posteriors' means: sharper images of the same latents, so that it can be done after,
 * or while, a transformer is trained on them.
 */
export async function refineDecoder(vae: AutoencoderKL, data: ImageDataset, options: RefineDecoderOptions): Promise<void> {
  const { steps = 1500, batchSize = 32, lr = 1e-3, noise: deviation = 0.05, seed, signal, onProgress } = options;
  checkPositive('lr', lr);
  const rng = createRng(seed);
  const noise = rng.split('noise');
  const batches = shuffledBatches(data.labels.length, batchSize, rng.split('data'));
  const parameters = [...vae.decoder.parameters(), ...vae.post_quant_conv.parameters()];
  const optimizer = new AdamW(parameters);
  const { scalingFactor } = vae.config;
  try {
    await optimise(
      () => {
        const x = imageTensor(data, batches.next());
        const z = stopGradient(vae.toLatents(x));
        const noisy = tf.add(z, tf.mul(randomNormal<tf.Rank.R4>(noise, z.shape), deviation));
        return tf.mean(tf.abs(tf.sub(vae.decode(tf.div(noisy, scalingFactor)), x))) as tf.Scalar;
      },
      { task: 'refine decoder', steps, groups: [{ parameters, optimizer, lr: withWarmUp(cosine({ from: lr, to: lr / 100, steps }), 50) }], signal, onProgress },
    );
  } finally {
    optimizer.dispose();
  }
}

/** The same weights with the scaling factor 1/σ, σ over the latents of the first 1,000 images. */
async function withUnitVariance(vae: AutoencoderKL, data: ImageDataset): Promise<AutoencoderKL> {
  const count = Math.min(1000, data.labels.length);
  const variance = tf.tidy(() => {
    const { mean } = vae.encode(imageTensor(data, Int32Array.from({ length: count }, (_, i) => i)));
    return tf.moments(mean).variance;
  });
  const [value] = await variance.data();
  variance.dispose();
  return Object.assign(vae, { config: { ...vae.config, scalingFactor: 1 / Math.sqrt(value!) } });
}

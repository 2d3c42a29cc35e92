import { ArgumentError, type LongTaskOptions, concatenate, createRng, throwIfCancelled } from '@tinyfusion/core';
import { GaussianDiffusion, type SamplingStep, classifierFreeGuidance, ddim, ddpm, dpmSolver, sampleToEnd } from '@tinyfusion/diffusion';
import type { AutoencoderKL, DiT } from '@tinyfusion/models';
import type { BlockHook } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { type StepCaching, cachedPass } from './step-caching.js';

/** How samples are drawn. */
export interface SampleOptions extends LongTaskOptions, StepCaching {
  /** Default `'dpm'`: DPM-Solver++(2M), good from ten steps on. `'ddpm'` is the paper's. */
  solver?: 'dpm' | 'ddim' | 'ddpm';
  /** Default 20 (paper: 250 with DDPM). */
  steps?: number;
  /** Strength of classifier-free guidance. Default 1.5, the paper's for measuring; 1 is none. */
  guidance?: number;
  /** How many channels are guided. Default `'all'`; the reference guides 3. */
  guidedChannels?: number | 'all';
  /** Samples a pass of the model. Default 64. */
  batchSize?: number;
  /** Names the noise of every sample: sample i of a seed starts from the same noise, whatever the batch or the model. */
  seed: number;
  /** Runs around the model's branches, as in `distill`. */
  branchHook?: BlockHook;
  /** Sees every step of every batch, e.g. for a preview; tensors are the sampler's. */
  onStep?: (step: SamplingStep, batch: number) => void;
}

/**
 * Draws samples, one a label.
 * @yields batches of images in [-1, 1], `[n, H, W, C]` of the autoencoder's size, which belong to the caller
 */
export async function* sampleImages(dit: DiT, vae: AutoencoderKL, labels: ArrayLike<number>, options: SampleOptions): AsyncGenerator<tf.Tensor4D, void, void> {
  const { solver = 'dpm', steps = 20, guidance = 1.5, guidedChannels = 'all', batchSize = 64, seed, branchHook, onStep, signal, onProgress, ...caching } = options;
  const { inputSize: side, inChannels, numClasses } = dit.config;
  const wrong = Array.from(labels).find((l) => !Number.isInteger(l) || l < 0 || l >= numClasses);
  if (wrong !== undefined) throw new ArgumentError('labels', wrong, `integers from 0 to ${numClasses - 1}`);
  if (!Number.isInteger(steps) || steps < 1 || steps > 1000) throw new ArgumentError('steps', steps, 'an integer from 1 to 1000');
  const rng = createRng(seed);
  const diffusion = new GaussianDiffusion(solver === 'dpm' ? {} : { respacing: String(steps) });
  for (let at = 0; at < labels.length; at += batchSize) {
    throwIfCancelled(signal, 'sample');
    const n = Math.min(batchSize, labels.length - at);
    const own = Int32Array.from({ length: n }, (_, i) => labels[at + i]!);
    const noise = tf.tensor4d(concatenate(Array.from({ length: n }, (_, i) => rng.split(at + i).normal(side * side * inChannels))), [n, side, side, inChannels]);
    const conditioned = tf.tensor1d(own, 'int32');
    const doubled = guidance === 1 ? undefined : tf.tensor1d([...own, ...own.map(() => dit.nullClass)], 'int32');
    const { pass, dispose } = cachedPass((x, t, hook) => dit.forward(x as tf.Tensor4D, t, doubled ?? conditioned, { hook, branchHook }), caching);
    const denoiser = doubled === undefined ? pass : classifierFreeGuidance(pass, { scale: guidance, channels: guidedChannels });
    const shared = { noise, rng: rng.split(`steps ${at}`), signal };
    const run = solver === 'dpm' ? dpmSolver(diffusion, denoiser, { ...shared, steps, spacing: 'time' }) : solver === 'ddim' ? ddim(diffusion, denoiser, shared) : ddpm(diffusion, denoiser, shared);
    try {
      const z = (await sampleToEnd(run, (step) => onStep?.(step, at / batchSize))) as tf.Tensor4D;
      const images = vae.fromLatents(z);
      z.dispose();
      onProgress?.({ task: 'sample', step: at + n, total: labels.length, unit: 'image' });
      yield images;
    } finally {
      dispose();
      tf.dispose([noise, conditioned, ...(doubled === undefined ? [] : [doubled])]);
    }
  }
}

import { ArgumentError, type LongTaskOptions, concatenate, createRng, throwIfCancelled } from '@tinyfusion/core';
import { type AsyncDenoiser, GaussianDiffusion, type SamplingStep, Transport, classifierFreeGuidance, ddim, ddpm, dpmSolver, sampleOde, sampleToEnd } from '@tinyfusion/diffusion';
import { type AutoencoderKL, DiT, type MAR, SiT, sampleMAR } from '@tinyfusion/models';
import * as tf from '@tensorflow/tfjs-core';
import type { Prunable } from './objective.js';
import type { BatchShare } from './shared-batches.js';
import { type StepCaching, cachedPass } from './step-caching.js';

/** How samples are drawn. */
export interface SampleOptions extends LongTaskOptions, StepCaching {
  /** Of a DiT. Default `'dpm'`: DPM-Solver++(2M), good from ten steps on. `'ddpm'` is the paper's. SiT is sampled by Heun's method, MAR by its own. */
  solver?: 'dpm' | 'ddim' | 'ddpm';
  /** Default 20 (paper: 250 with DDPM). SiT: half as many steps of Heun's method; MAR: iterations, at most one a token. */
  steps?: number;
  /** Strength of classifier-free guidance. Default 1.5, the paper's for measuring; 1 is none. */
  guidance?: number;
  /** How many channels are guided. Default `'all'`; the reference guides 3. */
  guidedChannels?: number | 'all';
  /** Samples a pass of the model. Default 64. */
  batchSize?: number;
  /** Names the noise of every sample: sample i of a seed starts from the same noise, whatever the batch or the model. */
  seed: number;
  /** Draws every `size`-th batch from `rank` on alone, as they are among all. Default: all. */
  share?: BatchShare | undefined;
  /** Sees every step of every batch, e.g. for a preview; tensors are the sampler's. */
  onStep?: (step: SamplingStep, batch: number) => void;
}

/**
 * Draws samples, one a label.
 * @yields batches of images in [-1, 1], `[n, H, W, C]` of the autoencoder's size, which belong to the caller
 */
export async function* sampleImages(model: Prunable, vae: AutoencoderKL, labels: ArrayLike<number>, options: SampleOptions): AsyncGenerator<tf.Tensor4D, void, void> {
  const { solver = 'dpm', steps = 20, guidance = 1.5, guidedChannels = 'all', batchSize = 64, seed, share = { rank: 0, size: 1 }, onStep, signal, onProgress, ...caching } = options;
  const { inputSize: side, inChannels, numClasses } = model.config;
  const wrong = Array.from(labels).find((l) => !Number.isInteger(l) || l < 0 || l >= numClasses);
  if (wrong !== undefined) throw new ArgumentError('labels', wrong, `integers from 0 to ${numClasses - 1}`);
  if (!Number.isInteger(steps) || steps < 1 || steps > 1000) throw new ArgumentError('steps', steps, 'an integer from 1 to 1000');
  const rng = createRng(seed);
  const diffusion = new GaussianDiffusion(solver === 'dpm' ? {} : { respacing: String(steps) });
  for (let at = share.rank * batchSize; at < labels.length; at += share.size * batchSize) {
    throwIfCancelled(signal, 'sample');
    const n = Math.min(batchSize, labels.length - at);
    const own = Int32Array.from({ length: n }, (_, i) => labels[at + i]!);
    const noise = tf.tensor4d(concatenate(Array.from({ length: n }, (_, i) => rng.split(at + i).normal(side * side * inChannels))), [n, side, side, inChannels]);
    const report = (step: SamplingStep): void => onStep?.(step, at / batchSize);
    const passes = model instanceof DiT ? cachedPassOf(model, own, { guidance, guidedChannels, caching }) : undefined;
    try {
      const shared = { noise, rng: rng.split(`steps ${at}`), signal };
      let z: tf.Tensor4D;
      if (passes === undefined) z = await sampleToEnd(sampleMAR(model as MAR, { labels: [...own], rng: shared.rng, iterations: Math.min(steps, (model as MAR).tokens), steps: '50', guidance, clipDenoised: LARGEST_LATENT, signal }));
      else if (model instanceof SiT) z = (await sampleToEnd(sampleOde(new Transport(), passes.denoiser, { noise, method: 'heun2', steps: Math.max(1, Math.round(steps / 2)), signal }))) as tf.Tensor4D;
      else {
        const run = solver === 'dpm' ? dpmSolver(diffusion, passes.denoiser, { ...shared, steps, spacing: 'time' }) : solver === 'ddim' ? ddim(diffusion, passes.denoiser, shared) : ddpm(diffusion, passes.denoiser, shared);
        z = (await sampleToEnd(run, report)) as tf.Tensor4D;
      }
      const images = vae.fromLatents(z);
      z.dispose();
      onProgress?.({ task: 'sample', step: at + n, total: labels.length, unit: 'image' });
      yield images;
    } finally {
      passes?.dispose();
      noise.dispose();
    }
  }
}

/** Latents have unit variance, and none of the embedded images' is larger than 4.1. */
const LARGEST_LATENT = 4;

/** A guided denoiser of a model for some labels; `dispose` frees what it holds. */
function cachedPassOf(model: DiT, labels: Int32Array, { guidance, guidedChannels, caching }: { guidance: number; guidedChannels: number | 'all'; caching: StepCaching }): { denoiser: AsyncDenoiser; dispose: () => void } {
  const y = tf.tensor1d(guidance === 1 ? labels : [...labels, ...labels.map(() => model.nullClass)], 'int32');
  const { pass, dispose } = cachedPass((x, t, hook) => model.forward(x as tf.Tensor4D, t, y, { hook }), caching);
  return {
    denoiser: guidance === 1 ? pass : classifierFreeGuidance(pass, { scale: guidance, channels: guidedChannels }),
    dispose: () => {
      dispose();
      y.dispose();
    },
  };
}

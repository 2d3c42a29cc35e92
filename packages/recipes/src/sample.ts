import { ArgumentError, type LongTaskOptions, concatenate, createRng, throwIfCancelled } from '@tinyfusion/core';
import { type SamplingStep, Transport, ddim, ddpm, dpmSolver, sampleOde, sampleToEnd } from '@tinyfusion/diffusion';
import { type AutoencoderKL, DiT, type DiTConfig, type MAR, SiT, sampleMAR } from '@tinyfusion/models';
import * as tf from '@tensorflow/tfjs-core';
import { checkCount } from './check-options.js';
import { Denoisers, type HeldDenoiser } from './denoisers.js';
import { diffusionOf } from './diffusion-of.js';
import type { Prunable } from './objective.js';
import type { BatchShare } from './shared-batches.js';
import type { StepCaching } from './step-caching.js';

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
  /**
   * Whether a step of a DiT or SiT on WebGPU is recorded before the first, with progress of its own, and replayed from then
   * on: the same pictures to 1e-5 of their range, sooner. Default `true`; step caching and low-rank adapters do without.
   */
  compile?: boolean | undefined;
  /** Draws every `size`-th batch from `rank` on alone, as they are among all. Default: all. */
  share?: BatchShare | undefined;
  /** Sees every step of every batch, e.g. for a preview; tensors are the sampler's. Of a DiT alone. */
  onStep?: (step: SamplingStep, batch: number) => void;
}

/**
 * Draws samples, one a label.
 * @yields batches of images in [-1, 1], `[n, H, W, C]` of the autoencoder's size, which belong to the caller
 */
export async function* sampleImages(model: Prunable, vae: AutoencoderKL, labels: ArrayLike<number>, options: SampleOptions): AsyncGenerator<tf.Tensor4D, void, void> {
  const { solver = 'dpm', steps = 20, guidance = 1.5, guidedChannels = 'all', batchSize = 64, seed, share = { rank: 0, size: 1 }, compile, onStep, signal, onProgress, ...caching } = options;
  const { inputSize: side, inChannels, numClasses } = model.config;
  const wrong = Array.from(labels).find((l) => !Number.isInteger(l) || l < 0 || l >= numClasses);
  if (wrong !== undefined) throw new ArgumentError('labels', wrong, `integers from 0 to ${numClasses - 1}`);
  checkCount('batchSize', batchSize);
  if (!Number.isInteger(steps) || steps < 1 || steps > 1000) throw new ArgumentError('steps', steps, 'an integer from 1 to 1000');
  const rng = createRng(seed);
  const denoisers = model instanceof DiT ? new Denoisers(model, { guidance, guidedChannels, compile, ...caching }) : undefined;
  try {
    for (let at = share.rank * batchSize; at < labels.length; at += share.size * batchSize) {
      throwIfCancelled(signal, 'sample');
      const n = Math.min(batchSize, labels.length - at);
      const own = Int32Array.from({ length: n }, (_, i) => labels[at + i]!);
      const noise = tf.tensor4d(concatenate(Array.from({ length: n }, (_, i) => rng.split(at + i).normal(side * side * inChannels))), [n, side, side, inChannels]);
      const report = (step: SamplingStep): void => onStep?.(step, at / batchSize);
      let held: HeldDenoiser | undefined;
      try {
        held = await denoisers?.of(own, { signal, onProgress });
        const shared = { noise, rng: rng.split(`steps ${at}`), signal };
        let z: tf.Tensor4D;
        if (held === undefined) z = await sampleToEnd(sampleMAR(model as MAR, { labels: [...own], rng: shared.rng, iterations: Math.min(steps, (model as MAR).tokens), steps: '50', guidance, clipDenoised: LARGEST_LATENT, signal }));
        else if (model instanceof SiT) z = (await sampleToEnd(sampleOde(new Transport(), held.denoiser, { noise, method: 'heun2', steps: Math.max(1, Math.round(steps / 2)), signal }))) as tf.Tensor4D;
        else {
          const diffusion = diffusionOf(model.config as DiTConfig, solver === 'dpm' ? {} : { respacing: String(steps) });
          const run = solver === 'dpm' ? dpmSolver(diffusion, held.denoiser, { ...shared, steps, spacing: 'time' }) : solver === 'ddim' ? ddim(diffusion, held.denoiser, shared) : ddpm(diffusion, held.denoiser, shared);
          z = (await sampleToEnd(run, report)) as tf.Tensor4D;
        }
        const images = vae.fromLatents(z);
        z.dispose();
        // ranks go at the same pace, a batch each in a round
        onProgress?.({ task: 'sample', step: Math.min(labels.length, at + n + (share.size - 1 - share.rank) * batchSize), total: labels.length, unit: 'image' });
        yield images;
      } finally {
        held?.dispose();
        noise.dispose();
      }
    }
  } finally {
    denoisers?.dispose();
  }
}

/** Latents have unit variance, and none of the embedded images' is larger than 4.1. */
const LARGEST_LATENT = 4;

import { type LongTaskOptions, type Rng, concatenate, createRng, throwIfCancelled } from '@tinyfusion/core';
import { type AsyncDenoiser, GaussianDiffusion, Transport, ddim, ddpm, dpmSolver, sampleOde } from '@tinyfusion/diffusion';
import { MAR, SiT, sampleMAR } from '@tinyfusion/models';
import type { BlockHook } from '@tinyfusion/nn';
import { Denoisers, type Prunable } from '@tinyfusion/recipes';
import * as tf from '@tensorflow/tfjs-core';
import type { DrawEvent, DrawSettings, Who } from '../protocol';
import { decodesPreviews, pixelsOf } from './pixels';
import type { Context } from './server';
import { session } from './session';

/** Least milliseconds between previews of one model: decoding them must not become the work. */
const PREVIEW_MS = 120;

/** None of the embedded images' latents is larger than 4.1; MAR's small head needs the bound. */
const LARGEST_LATENT = 4;

/** A model in the middle of drawing; `latents` is what it expects at the end, and belongs to the sampler. */
interface DrawingStep {
  readonly step: number;
  readonly total: number;
  readonly latents: tf.Tensor4D;
}

/**
 * Draws with several models in turns, a step each, from the same noise.
 * @param who the student is the session's for `kept`
 */
export async function draw({ who, kept, ...settings }: DrawSettings & { who: readonly Who[]; kept: readonly number[] }, { signal, emit }: Context<DrawEvent>): Promise<void> {
  const decode = await decodesPreviews();
  const runs = who.map((name) => {
    const { model, hook } = name === 'teacher' ? { model: session.teacher.model, hook: undefined } : session.student(kept);
    const prepare = () => drawing(model, hook, settings, { signal, onProgress: ({ step, total }) => emit({ who: name, prepared: step, of: total ?? step }) });
    return { name, prepare, steps: undefined as Drawing | undefined, seconds: 0, shown: -Infinity, ended: false };
  });
  try {
    while (runs.some((run) => !run.ended)) {
      for (const run of runs.filter(({ ended }) => !ended)) {
        throwIfCancelled(signal, 'drawing');
        run.steps ??= await run.prepare();
        let from = performance.now();
        const { value, done } = await run.steps.next();
        if (done === true) {
          run.ended = true;
          continue;
        }
        await settled(value.latents);
        run.seconds += (performance.now() - from) / 1000;
        const last = value.step === value.total;
        if (!last && performance.now() - run.shown < PREVIEW_MS) continue;
        from = performance.now();
        const pixels = await pixelsOf(value.latents, { decode: decode || last });
        if (last) run.seconds += (performance.now() - from) / 1000;
        run.shown = performance.now();
        emit({ who: run.name, step: value.step, total: value.total, pixels, seconds: run.seconds }, [pixels.bytes.buffer]);
      }
    }
  } finally {
    for (const run of runs) await run.steps?.return();
  }
}

/** Waits until the device has computed a tensor, so that times are true. */
async function settled(x: tf.Tensor): Promise<void> {
  const probe = tf.tidy(() => tf.slice(tf.reshape(x, [-1]), [0], [1]));
  await probe.data();
  probe.dispose();
}

/** A run of a sampler, each step of it. */
type Drawing = AsyncGenerator<DrawingStep, void, void>;

/**
 * A run of the sampler that suits the model. Sample i of a seed starts from the same noise whatever the model. On WebGPU a step
 * is recorded first; the run is to be started then, as it frees that when it ends.
 */
export async function drawing(model: Prunable, hook: BlockHook | undefined, settings: DrawSettings, { signal, onProgress }: LongTaskOptions): Promise<Drawing> {
  if (model instanceof MAR) return drawingMar(model, hook, settings, signal);
  const denoisers = new Denoisers(model, { guidance: settings.guidance, guidedChannels: 'all', hook });
  try {
    const { denoiser, dispose } = await denoisers.of(settings.labels, { signal, onProgress });
    const free = (): void => {
      dispose();
      denoisers.dispose();
    };
    return drawingBy(model, denoiser, settings, signal, free);
  } catch (error) {
    denoisers.dispose();
    throw error;
  }
}

async function* drawingMar(model: MAR, hook: BlockHook | undefined, { labels, steps, guidance, seed }: DrawSettings, signal: AbortSignal | undefined): Drawing {
  for await (const { step, total, x } of sampleMAR(model, { labels, rng: createRng(seed), iterations: Math.min(steps, model.tokens), steps: '50', guidance, clipDenoised: session.fitsData ? LARGEST_LATENT : undefined, hook, signal })) {
    yield { step, total, latents: x };
    if (step === total) x.dispose();
  }
}

async function* drawingBy(model: Exclude<Prunable, MAR>, denoiser: AsyncDenoiser, { labels, steps, solver, seed }: DrawSettings, signal: AbortSignal | undefined, free: () => void): Drawing {
  const { inputSize: side, inChannels } = model.config;
  const rng = createRng(seed);
  const noise = tf.tensor4d(concatenate(labels.map((_, i) => rng.split(i).normal(side * side * inChannels))), [labels.length, side, side, inChannels]);
  try {
    for await (const { x, xStart, step, total } of sampling(model, denoiser, { noise, rng: rng.split('steps'), steps, solver, signal })) {
      const last = step === total;
      try {
        yield { step, total, latents: (last ? x : xStart) as tf.Tensor4D };
      } finally {
        if (last) x.dispose(); // the sampler has handed it over
      }
    }
  } finally {
    noise.dispose();
    free();
  }
}

/** @yields each step; the last one's `x` is the caller's */
async function* sampling(model: Exclude<Prunable, MAR>, denoise: AsyncDenoiser, { noise, rng, steps, solver, signal }: { noise: tf.Tensor4D; rng: Rng; steps: number; solver: DrawSettings['solver']; signal: AbortSignal | undefined }): AsyncGenerator<{ step: number; total: number; x: tf.Tensor; xStart: tf.Tensor }, void, void> {
  if (model instanceof SiT) {
    const method = solver === 'euler' ? 'euler' : 'heun2';
    for await (const { step, total, x } of sampleOde(new Transport(), denoise, { noise, method, steps: Math.max(1, method === 'euler' ? steps : Math.round(steps / 2)), signal })) yield { step, total, x, xStart: x };
  } else {
    const diffusion = new GaussianDiffusion({ ...(solver === 'dpm' ? {} : { respacing: String(steps) }), variance: model.config.learnSigma ? 'learned-range' : 'fixed-large' });
    yield* solver === 'dpm' ? dpmSolver(diffusion, denoise, { noise, steps, spacing: 'time', signal }) : solver === 'ddim' ? ddim(diffusion, denoise, { noise, signal }) : ddpm(diffusion, denoise, { noise, rng, signal });
  }
}

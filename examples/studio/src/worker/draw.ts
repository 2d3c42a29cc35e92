import { type Rng, concatenate, createRng, throwIfCancelled } from '@tinyfusion/core';
import { type AsyncDenoiser, GaussianDiffusion, Transport, classifierFreeGuidance, ddim, ddpm, dpmSolver, sampleOde } from '@tinyfusion/diffusion';
import { type DiT, MAR, SiT, sampleMAR } from '@tinyfusion/models';
import type { BlockHook } from '@tinyfusion/nn';
import type { Prunable } from '@tinyfusion/recipes';
import * as tf from '@tensorflow/tfjs-core';
import type { DrawSettings, Preview, Who } from '../protocol';
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
export async function draw({ who, kept, ...settings }: DrawSettings & { who: readonly Who[]; kept: readonly number[] }, { signal, emit }: Context<Preview>): Promise<void> {
  const decode = await decodesPreviews();
  const runs = who.map((name) => {
    const { model, hook } = name === 'teacher' ? { model: session.teacher.model, hook: undefined } : session.student(kept);
    return { name, steps: drawing(model, hook, settings, signal), seconds: 0, shown: -Infinity, ended: false };
  });
  try {
    while (runs.some((run) => !run.ended)) {
      for (const run of runs.filter(({ ended }) => !ended)) {
        throwIfCancelled(signal, 'drawing');
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
    for (const run of runs) await run.steps.return();
  }
}

/** Waits until the device has computed a tensor, so that times are true. */
async function settled(x: tf.Tensor): Promise<void> {
  const probe = tf.tidy(() => tf.slice(tf.reshape(x, [-1]), [0], [1]));
  await probe.data();
  probe.dispose();
}

/**
 * A run of the sampler that suits the model. Sample i of a seed starts from the same noise whatever the model.
 * @yields each step
 */
export async function* drawing(model: Prunable, hook: BlockHook | undefined, { labels, steps, guidance, solver, seed }: DrawSettings, signal: AbortSignal): AsyncGenerator<DrawingStep, void, void> {
  const { inputSize: side, inChannels } = model.config;
  const rng = createRng(seed);
  if (model instanceof MAR) {
    for await (const { step, total, x } of sampleMAR(model, { labels, rng, iterations: Math.min(steps, model.tokens), steps: '50', guidance, clipDenoised: session.fitsData ? LARGEST_LATENT : undefined, hook, signal })) {
      yield { step, total, latents: x };
      if (step === total) x.dispose();
    }
    return;
  }
  const noise = tf.tensor4d(concatenate(labels.map((_, i) => rng.split(i).normal(side * side * inChannels))), [labels.length, side, side, inChannels]);
  const y = tf.tensor1d(guidance === 1 ? [...labels] : [...labels, ...labels.map(() => model.nullClass)], 'int32');
  try {
    for await (const { x, xStart, step, total } of sampling(model, denoiser(model, y, hook, guidance), { noise, rng: rng.split('steps'), steps, solver, signal })) {
      const last = step === total;
      try {
        yield { step, total, latents: (last ? x : xStart) as tf.Tensor4D };
      } finally {
        if (last) x.dispose(); // the sampler has handed it over
      }
    }
  } finally {
    tf.dispose([noise, y]);
  }
}

function denoiser(model: DiT, y: tf.Tensor1D, hook: BlockHook | undefined, guidance: number): AsyncDenoiser {
  const plain = (x: tf.Tensor, t: tf.Tensor1D): tf.Tensor => model.forward(x as tf.Tensor4D, t, y, { hook });
  return guidance === 1 ? plain : classifierFreeGuidance(plain, { scale: guidance, channels: 'all' });
}

/** @yields each step; the last one's `x` is the caller's */
async function* sampling(model: DiT, denoise: AsyncDenoiser, { noise, rng, steps, solver, signal }: { noise: tf.Tensor4D; rng: Rng; steps: number; solver: DrawSettings['solver']; signal: AbortSignal }): AsyncGenerator<{ step: number; total: number; x: tf.Tensor; xStart: tf.Tensor }, void, void> {
  if (model instanceof SiT) {
    const method = solver === 'euler' ? 'euler' : 'heun2';
    for await (const { step, total, x } of sampleOde(new Transport(), denoise, { noise, method, steps: Math.max(1, method === 'euler' ? steps : Math.round(steps / 2)), signal })) yield { step, total, x, xStart: x };
  } else {
    const diffusion = new GaussianDiffusion(solver === 'dpm' ? {} : { respacing: String(steps) });
    yield* solver === 'dpm' ? dpmSolver(diffusion, denoise, { noise, steps, spacing: 'time', signal }) : solver === 'ddim' ? ddim(diffusion, denoise, { noise, signal }) : ddpm(diffusion, denoise, { noise, rng, signal });
  }
}

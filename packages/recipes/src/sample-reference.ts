import { ArgumentError, type LongTaskOptions, type Rng } from '@tinyfusion/core';
import { type AsyncDenoiser, type NoiseSource, type SamplingStep, Transport, ddim, ddpm, dpmSolver, sampleOde, sampleSde, sampleToEnd } from '@tinyfusion/diffusion';
import { type DiT, MAR, SiT, sampleMAR } from '@tinyfusion/models';
import * as tf from '@tensorflow/tfjs-core';
import { Denoisers } from './denoisers.js';
import { diffusionOf } from './diffusion-of.js';
import type { Prunable } from './objective.js';
import { type StepCaching, refuseStepCache } from './step-caching.js';

/**
 * Draws latents with any model as its reference's `sample.py` does.
 *
 * Cost: `steps` passes of the model over all labels, twice where it is guided.
 */

/** Ways to sample, by family. */
export type Solver = 'ddpm' | 'ddim' | 'dpm' | 'ode' | 'sde' | 'mar';

export interface SampleReferenceOptions extends LongTaskOptions, StepCaching {
  /** Default: the reference's. DiT: `'ddpm'` (also `'ddim'`, `'dpm'`), SiT: `'ode'` (also `'sde'`), MAR: `'mar'`. */
  solver?: Solver;
  /** Default: the reference's, 250 for DDPM, 250 for the SDE, 50 for the ODE, 64 iterations of MAR; 20 for `'dpm'`. */
  steps?: number;
  /** Strength of guidance. Default 4, as DiT's and SiT's `sample.py`; 1 is none. */
  guidance?: number;
  /**
   * The stream of all noise. With `torchCpu` or `torchCuda`, DiT and SiT draw as the reference draws, in PyTorch's layout
   * and for the second, ignored half of guided batches too, so that a seed means the same picture. MAR's reference takes
   * its orders from numpy, which `sampleMAR` can be given.
   */
  rng: Rng;
  /** Whether a step of a DiT or SiT on WebGPU is recorded first, and replayed. Default `true`, see `SampleOptions`. */
  compile?: boolean | undefined;
  /** Sees every step, e.g. for a preview; tensors are the sampler's. Of DiT's solvers alone. */
  onStep?: (step: SamplingStep) => void;
}

/** Latents, `[labels, H, W, C]`, which belong to the caller. */
export async function sampleReference(model: Prunable, labels: readonly number[], options: SampleReferenceOptions): Promise<tf.Tensor4D> {
  const denoisers = referenceDenoisers(model, options);
  try {
    return await sampleReferenceWith(denoisers, model, labels, options);
  } finally {
    denoisers?.dispose();
  }
}

/** The denoisers of {@link sampleReferenceWith}, for one batch after the other; `undefined` for a MAR. */
export function referenceDenoisers(model: Prunable, { guidance = 4, compile, schedule, around }: Pick<SampleReferenceOptions, 'guidance' | 'compile' | 'schedule' | 'around'>): Denoisers | undefined {
  return model instanceof MAR ? undefined : new Denoisers(model, { guidance, compile, ...(schedule === undefined ? {} : { schedule }), ...(around === undefined ? {} : { around }) });
}

/** As {@link sampleReference}, with denoisers that outlive the batch. @param denoisers of the same model and options */
export async function sampleReferenceWith(denoisers: Denoisers | undefined, model: Prunable, labels: readonly number[], options: SampleReferenceOptions): Promise<tf.Tensor4D> {
  const { numClasses } = model.config;
  for (const label of labels) if (!Number.isInteger(label) || label < 0 || label >= numClasses) throw new ArgumentError('labels', label, `integers from 0 to ${numClasses - 1}`);
  const report = (step: number, total: number): void => options.onProgress?.({ task: 'sample', step, total, unit: 'step' });
  if (model instanceof MAR || (model instanceof SiT && (options.solver ?? 'ode') === 'ode')) refuseStepCache(options);
  if (model instanceof MAR) return mar(model, labels, options, report);
  return model instanceof SiT ? sit(denoisers!, model, labels, options, report) : dit(denoisers!, model, labels, options, report);
}

type Report = (step: number, total: number) => void;

function dit(denoisers: Denoisers, model: DiT, labels: readonly number[], options: SampleReferenceOptions, report: Report): Promise<tf.Tensor4D> {
  const { solver = 'ddpm', steps = solver === 'dpm' ? 20 : 250, onStep, signal } = options;
  if (solver !== 'ddpm' && solver !== 'ddim' && solver !== 'dpm') throw new ArgumentError('solver', solver, "'ddpm', 'ddim' or 'dpm' for a DiT");
  return inBatch(denoisers, model, labels, options, (denoiser, noise, noiseSource) => {
    const diffusion = diffusionOf(model.config, solver === 'dpm' ? {} : { respacing: solver === 'ddim' ? `ddim${steps}` : String(steps) });
    const shared = { noise, noiseSource, signal };
    const run = solver === 'dpm' ? dpmSolver(diffusion, denoiser, { ...shared, steps }) : solver === 'ddim' ? ddim(diffusion, denoiser, shared) : ddpm(diffusion, denoiser, shared);
    return sampleToEnd(run, (step) => {
      onStep?.(step);
      report(step.step, step.total);
    });
  });
}

function sit(denoisers: Denoisers, model: SiT, labels: readonly number[], options: SampleReferenceOptions, report: Report): Promise<tf.Tensor4D> {
  const { solver = 'ode', steps = solver === 'sde' ? 250 : 50, signal } = options;
  if (solver !== 'ode' && solver !== 'sde') throw new ArgumentError('solver', solver, "'ode' or 'sde' for a SiT");
  const transport = new Transport();
  return inBatch(denoisers, model, labels, options, (denoiser, noise, noiseSource) => {
    const run = solver === 'ode' ? sampleOde(transport, denoiser, { noise, method: 'dopri5', steps, signal }) : sampleSde(transport, denoiser, { noise, noiseSource, steps, signal });
    return sampleToEnd(run, ({ step, total }) => report(step, total));
  });
}

async function mar(model: MAR, labels: readonly number[], { solver = 'mar', steps = 64, guidance = 4, rng, signal }: SampleReferenceOptions, report: Report): Promise<tf.Tensor4D> {
  if (solver !== 'mar') throw new ArgumentError('solver', solver, "'mar' for a MAR");
  return sampleToEnd(sampleMAR(model, { labels, rng, iterations: Math.min(steps, model.tokens), guidance, signal }), ({ step, total }) => report(step, total));
}

/** Samples with classes and guidance closed over, and everything freed after. */
async function inBatch(denoisers: Denoisers, model: DiT, labels: readonly number[], { guidance = 4, rng, signal, onProgress }: SampleReferenceOptions, sample: (denoiser: AsyncDenoiser, noise: tf.Tensor4D, noiseSource: NoiseSource) => Promise<tf.Tensor>): Promise<tf.Tensor4D> {
  const { inputSize: side, inChannels } = model.config;
  const { denoiser, dispose } = await denoisers.of(labels, { signal, onProgress });
  const noise = torchLayout(rng, [labels.length, side, side, inChannels], 1);
  try {
    return (await sample(denoiser, noise, (shape) => torchLayout(rng, shape, guidance === 1 ? 1 : 2))) as tf.Tensor4D;
  } finally {
    dispose();
    noise.dispose();
  }
}

/** Normal draws in PyTorch's order, for `times` as many samples as are kept. */
function torchLayout(rng: Rng, [n, h, w, c]: readonly number[], times: number): tf.Tensor4D {
  return tf.tidy(() => {
    const size = n! * h! * w! * c!;
    const drawn = rng.normal(times * size).subarray(0, size);
    return tf.transpose(tf.tensor4d(drawn, [n!, c!, h!, w!]), [0, 2, 3, 1]);
  });
}

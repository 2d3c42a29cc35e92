import { ArgumentError, type LongTaskOptions, type Rng } from '@tinyfusion/core';
import { type AsyncDenoiser, GaussianDiffusion, type NoiseSource, type SamplingStep, Transport, classifierFreeGuidance, ddim, ddpm, dpmSolver, sampleOde, sampleSde, sampleToEnd } from '@tinyfusion/diffusion';
import { type DiT, MAR, SiT, sampleMAR } from '@tinyfusion/models';
import * as tf from '@tensorflow/tfjs-core';
import type { Prunable } from './objective.js';
import { type StepCaching, cachedPass, refuseStepCache } from './step-caching.js';

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
  /** Sees every step, e.g. for a preview; tensors are the sampler's. Of DiT's solvers alone. */
  onStep?: (step: SamplingStep) => void;
}

/** Latents, `[labels, H, W, C]`, which belong to the caller. */
export async function sampleReference(model: Prunable, labels: readonly number[], options: SampleReferenceOptions): Promise<tf.Tensor4D> {
  const { numClasses } = model.config;
  for (const label of labels) if (!Number.isInteger(label) || label < 0 || label >= numClasses) throw new ArgumentError('labels', label, `integers from 0 to ${numClasses - 1}`);
  const report = (step: number, total: number): void => options.onProgress?.({ task: 'sample', step, total, unit: 'step' });
  if (model instanceof MAR || (model instanceof SiT && (options.solver ?? 'ode') === 'ode')) refuseStepCache(options);
  if (model instanceof MAR) return mar(model, labels, options, report);
  return model instanceof SiT ? sit(model, labels, options, report) : dit(model, labels, options, report);
}

type Report = (step: number, total: number) => void;

function dit(model: DiT, labels: readonly number[], { solver = 'ddpm', steps = solver === 'dpm' ? 20 : 250, guidance = 4, rng, onStep, signal, ...caching }: SampleReferenceOptions, report: Report): Promise<tf.Tensor4D> {
  if (solver !== 'ddpm' && solver !== 'ddim' && solver !== 'dpm') throw new ArgumentError('solver', solver, "'ddpm', 'ddim' or 'dpm' for a DiT");
  return inBatch(model, labels, guidance, rng, caching, (denoiser, noise, noiseSource) => {
    const diffusion = new GaussianDiffusion(solver === 'dpm' ? {} : { respacing: solver === 'ddim' ? `ddim${steps}` : String(steps) });
    const shared = { noise, noiseSource, signal };
    const run = solver === 'dpm' ? dpmSolver(diffusion, denoiser, { ...shared, steps }) : solver === 'ddim' ? ddim(diffusion, denoiser, shared) : ddpm(diffusion, denoiser, shared);
    return sampleToEnd(run, (step) => {
      onStep?.(step);
      report(step.step, step.total);
    });
  });
}

function sit(model: SiT, labels: readonly number[], { solver = 'ode', steps = solver === 'sde' ? 250 : 50, guidance = 4, rng, signal, ...caching }: SampleReferenceOptions, report: Report): Promise<tf.Tensor4D> {
  if (solver !== 'ode' && solver !== 'sde') throw new ArgumentError('solver', solver, "'ode' or 'sde' for a SiT");
  const transport = new Transport();
  return inBatch(model, labels, guidance, rng, caching, (denoiser, noise, noiseSource) => {
    const run = solver === 'ode' ? sampleOde(transport, denoiser, { noise, method: 'dopri5', steps, signal }) : sampleSde(transport, denoiser, { noise, noiseSource, steps, signal });
    return sampleToEnd(run, ({ step, total }) => report(step, total));
  });
}

async function mar(model: MAR, labels: readonly number[], { solver = 'mar', steps = 64, guidance = 4, rng, signal }: SampleReferenceOptions, report: Report): Promise<tf.Tensor4D> {
  if (solver !== 'mar') throw new ArgumentError('solver', solver, "'mar' for a MAR");
  return sampleToEnd(sampleMAR(model, { labels, rng, iterations: Math.min(steps, model.tokens), guidance, signal }), ({ step, total }) => report(step, total));
}

/** Samples with classes and guidance closed over, and everything freed after. */
async function inBatch(model: DiT, labels: readonly number[], guidance: number, rng: Rng, caching: StepCaching, sample: (denoiser: AsyncDenoiser, noise: tf.Tensor4D, noiseSource: NoiseSource) => Promise<tf.Tensor>): Promise<tf.Tensor4D> {
  const { inputSize: side, inChannels } = model.config;
  const guided = guidance !== 1;
  const y = tf.tensor1d(guided ? [...labels, ...labels.map(() => model.nullClass)] : [...labels], 'int32');
  const { pass: run, dispose } = cachedPass((x, t, hook) => model.forward(x as tf.Tensor4D, t, y, { hook }), caching);
  const noise = torchLayout(rng, [labels.length, side, side, inChannels], 1);
  try {
    return (await sample(guided ? classifierFreeGuidance(run, { scale: guidance }) : run, noise, (shape) => torchLayout(rng, shape, guided ? 2 : 1))) as tf.Tensor4D;
  } finally {
    dispose();
    tf.dispose([noise, y]);
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

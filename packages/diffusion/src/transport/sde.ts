import { ArgumentError, throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { AsyncDenoiser } from '../gaussian.js';
import { type SamplingOptions, noiseSourceOf } from '../sampling.js';
import { evenTimes } from './integrate.js';
import { type DiffusionForm, diffusionCoefficient } from './interpolant.js';
import type { TransportSampling } from './ode.js';
import type { Transport } from './transport.js';

/** Options of {@link sampleSde}. */
export interface SampleSdeOptions extends Pick<SamplingOptions, 'noise' | 'rng' | 'noiseSource' | 'signal'> {
  /** Euler–Maruyama, or a stochastic Heun with two runs of the model a step. Default `'euler'`. */
  method?: 'euler' | 'heun';
  /** Steps in all, the last one included. Default 250. Upstream: `num_steps`. */
  steps?: number;
  /** How much noise is added on the way. Default `'sigma'`, as SiT's command line. */
  form?: DiffusionForm;
  /** Factor of the form. Default 1. */
  norm?: number;
  /**
   * The last step, which adds no noise: `'mean'` follows the SDE's drift, `'euler'` the velocity, `'tweedie'` jumps to
   * the expected data, `'none'` leaves it out and takes the other steps to the end. Default `'mean'`.
   */
  lastStep?: 'mean' | 'euler' | 'tweedie' | 'none';
  /** How long the last step is. Default 0.04, as upstream's. */
  lastStepSize?: number;
}

/**
 * Samples by the SDE dx = (v + w·score) dt + √(2w) dW (Ma et al. 2024, equation 6). One draw of noise a step; nothing is
 * read back from the device. Where upstream runs the model once for the velocity and once for the score, it runs once
 * here, as both come from one output. Upstream: `Sampler.sample_sde`.
 *
 * @yields every step
 * @throws ArgumentError where an option makes no sense, or where the form divides by zero at an end of the path
 */
export async function* sampleSde(transport: Transport, denoiser: AsyncDenoiser, options: SampleSdeOptions): TransportSampling {
  const { noise, method = 'euler', steps = 250, form = 'sigma', norm = 1, lastStep = 'mean', signal } = options;
  const lastStepSize = lastStep === 'none' ? 0 : (options.lastStepSize ?? 0.04);
  if (!Number.isInteger(steps) || steps < 2) throw new ArgumentError('SampleSdeOptions.steps', steps, 'an integer of at least 2');
  if (method !== 'euler' && method !== 'heun') throw new ArgumentError('SampleSdeOptions.method', method, "'euler' or 'heun'");
  if (!['mean', 'euler', 'tweedie', 'none'].includes(lastStep)) throw new ArgumentError('SampleSdeOptions.lastStep', lastStep, "'mean', 'euler', 'tweedie' or 'none'");
  if (!(lastStepSize >= 0 && lastStepSize < 1)) throw new ArgumentError('SampleSdeOptions.lastStepSize', lastStepSize, 'a number in [0, 1)');
  if (!(norm > 0 && Number.isFinite(norm))) throw new ArgumentError('SampleSdeOptions.norm', norm, 'a positive number');
  const draw = noiseSourceOf('sampleSde', options);
  const [start, end] = transport.interval({ sde: { form, lastStepSize } });
  checkEnds(transport, { form, start, end, method, lastStep, lastStepSize });
  const times = evenTimes(start, end, steps - 1);
  const n = noise.shape[0]!;
  const dt = Math.fround(times[1]! - times[0]!);
  let evaluations = 0;

  const coefficient = (t: number) => diffusionCoefficient(transport.path, form, t, norm);
  /** What `use` makes of velocity and score at x; one run of the model. */
  const evaluate = (x: tf.Tensor, t: number, use: (velocity: tf.Tensor, score: tf.Tensor, all: Float64Array) => tf.Tensor) => {
    evaluations += 1;
    const all = new Float64Array(n).fill(t);
    return transport.running(denoiser, x, all, (output) => use(transport.velocity(output, x, all), transport.score(output, x, all), all));
  };
  const drift = (x: tf.Tensor, t: number) => evaluate(x, t, (velocity, score) => tf.add(velocity, tf.mul(score, coefficient(t))));
  const move = async (x: tf.Tensor, t: number): Promise<tf.Tensor> => {
    const held: tf.Tensor[] = [];
    const hold = (tensor: tf.Tensor): tf.Tensor => {
      held.push(tensor);
      return tensor;
    };
    try {
      const kick = hold(tf.tidy(() => tf.mul(draw(x.shape), Math.sqrt(2 * coefficient(t)) * Math.sqrt(dt))));
      if (method === 'euler') {
        const slope = hold(await drift(x, t));
        return tf.tidy(() => tf.add(tf.add(x, tf.mul(slope, dt)), kick));
      }
      const kicked = hold(tf.add(x, kick));
      const first = hold(await drift(kicked, t));
      const ahead = hold(tf.tidy(() => tf.add(kicked, tf.mul(first, dt))));
      const second = hold(await drift(ahead, t + dt));
      return tf.tidy(() => tf.add(kicked, tf.mul(tf.add(first, second), 0.5 * dt)));
    } finally {
      tf.dispose(held);
    }
  };
  const finish = (x: tf.Tensor): tf.Tensor | Promise<tf.Tensor> => {
    if (lastStep === 'none') return tf.clone(x);
    if (lastStep === 'tweedie') return evaluate(x, end, (_, score, all) => transport.dataFromScore(score, x, all));
    return evaluate(x, end, (velocity, score) => tf.add(x, tf.mul(lastStep === 'mean' ? tf.add(velocity, tf.mul(score, coefficient(end))) : velocity, lastStepSize)));
  };

  let x = tf.clone(noise);
  let handedOver = false;
  try {
    for (let step = 1; step <= steps; step++) {
      throwIfCancelled(signal, 'sample');
      const next = await (step < steps ? move(x, times[step - 1]!) : finish(x));
      x.dispose();
      x = next;
      handedOver = step === steps;
      yield { step, total: steps, t: step < steps ? times[step]! : Math.min(1, end + lastStepSize), x, evaluations };
      // timers and input get their turn
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  } finally {
    if (!handedOver) x.dispose();
  }
}

/** Refuses what upstream turns into NaN without a word. */
function checkEnds(transport: Transport, { form, start, end, method, lastStep, lastStepSize }: { form: DiffusionForm; start: number; end: number; method: string; lastStep: string; lastStepSize: number }): void {
  if (end <= start) throw new ArgumentError('SampleSdeOptions.lastStepSize', lastStepSize, `less than ${1 - start}: the ${transport.path.name} path of a ${transport.prediction} model starts at ${start}, and the other steps end where the last begins`);
  if (end === 1 && (lastStep === 'mean' || lastStep === 'tweedie')) {
    throw new ArgumentError('SampleSdeOptions.lastStepSize', lastStepSize, `a number above 0, such as 0.04, lastStep 'euler' or 'none', or a transport with a sampleEpsilon above 0: the score is infinite at t = 1, where '${lastStep}' would ask for it`);
  }
  if (form === 'sbdm' && start === 0 && transport.path.name !== 'vp') {
    throw new ArgumentError('SampleSdeOptions.form', form, `another form, or a transport with a sampleEpsilon above 0 (such as 1e-3): on the ${transport.path.name} path its noise is infinite at t = 0`);
  }
  if (end === 1 && method === 'heun') {
    throw new ArgumentError('SampleSdeOptions.lastStep', 'none', "'mean', 'euler' or 'tweedie', or method 'euler', or a transport with a sampleEpsilon above 0: Heun's method would divide by zero at t = 1");
  }
}

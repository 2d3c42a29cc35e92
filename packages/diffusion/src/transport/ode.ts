import { ArgumentError } from '@tinyfusion/core';
import type * as tf from '@tensorflow/tfjs-core';
import type { AsyncDenoiser } from '../gaussian.js';
import { type OdeMethod, evenTimes, integrate } from './integrate.js';
import type { Transport } from './transport.js';

/** One step of a transport's sampler. */
export interface TransportStep {
  /** Steps done, from 1. */
  step: number;
  total: number;
  /** The time reached: 0 is noise, 1 is data. */
  t: number;
  /** The state. It belongs to the sampler until the next step is asked for; the last one's to the caller. */
  x: tf.Tensor;
  /** Runs of the model so far. */
  evaluations: number;
}

/** A sampling run: ask for the next step, or leave early. */
export type TransportSampling = AsyncGenerator<TransportStep, void, void>;

/** Options of {@link sampleOde}. */
export interface SampleOdeOptions {
  /** What to start from, `[N, …]`: noise, or data where `reverse`; borrowed. */
  noise: tf.Tensor;
  /** Default `'dopri5'`, as upstream's. */
  method?: OdeMethod;
  /** Steps of equal size; for `dopri5`, states handed out on the way. Default 50. Upstream's `num_steps` is one more. */
  steps?: number;
  /** Of `dopri5`. Default 1e-6. */
  absoluteTolerance?: number;
  /** Of `dopri5`. Default 1e-3. */
  relativeTolerance?: number;
  /** From data to noise. Default `false`. */
  reverse?: boolean;
  signal?: AbortSignal | undefined;
}

/**
 * Samples by the probability flow ODE dx/dt = v(x, t) (Ma et al. 2024, equation 5). Upstream: `Sampler.sample_ode`.
 *
 * @param denoiser the model, with classes and guidance closed over; given times in [0, 1]
 * @yields every step
 * @throws ArgumentError where an option makes no sense
 */
export async function* sampleOde(transport: Transport, denoiser: AsyncDenoiser, options: SampleOdeOptions): TransportSampling {
  const { noise, method = 'dopri5', steps = 50, reverse = false, absoluteTolerance, relativeTolerance, signal } = options;
  if (!Number.isInteger(steps) || steps < 1) throw new ArgumentError('SampleOdeOptions.steps', steps, 'a positive integer');
  const n = noise.shape[0]!;
  const times = evenTimes(...(reverse ? transport.backwards() : transport.interval()), steps);
  const points = integrate(
    (t, [x]) => {
      const all = new Float64Array(n).fill(t);
      return transport.running(denoiser, x!, all, (output) => [transport.velocity(output, x!, all)]);
    },
    [noise],
    times,
    // beyond t = 1 the noise in x is negative, and what a model says of it nothing
    { method, task: 'sample', signal, stopAtEnd: transport.prediction === 'noise', ...(absoluteTolerance === undefined ? {} : { absoluteTolerance }), ...(relativeTolerance === undefined ? {} : { relativeTolerance }) },
  );
  for await (const { index, t, y, evaluations } of points) yield { step: index, total: steps, t, x: y[0]!, evaluations };
}

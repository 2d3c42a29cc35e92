import { ArgumentError, type Rng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { Denoiser } from '../gaussian.js';
import { type OdeMethod, evenTimes, integrate } from './integrate.js';
import type { Transport } from './transport.js';

/** Options of {@link odeLogLikelihood}. */
export interface OdeLogLikelihoodOptions {
  /** Draws the probes. */
  rng?: Rng;
  /** Replaces `rng`: probes of ±1 shaped as asked for, in the order of the derivative's evaluations. */
  probes?: (shape: readonly number[]) => tf.Tensor;
  /** Default `'dopri5'`. */
  method?: OdeMethod;
  /** Steps of equal size; for `dopri5`, which chooses its own, how often `onStep` is told. Default 50. */
  steps?: number;
  absoluteTolerance?: number;
  relativeTolerance?: number;
  /** Told of every one of `steps`: done, of how many. */
  onStep?: (step: number, total: number) => void;
  signal?: AbortSignal | undefined;
}

/**
 * Log likelihood of data under the probability flow, by the change of variables with Hutchinson's estimate of the
 * divergence: one random probe for each evaluation, redrawn every time. Upstream: `Sampler.sample_ode_likelihood`.
 *
 * @param data `[N, …]`, borrowed
 * @returns `logLikelihood` `[N]` in nats, and the `noise` the flow ends in; both belong to the caller
 */
export async function odeLogLikelihood(transport: Transport, denoiser: Denoiser, data: tf.Tensor, options: OdeLogLikelihoodOptions): Promise<{ logLikelihood: tf.Tensor1D; noise: tf.Tensor }> {
  const { rng, method = 'dopri5', steps = 50, absoluteTolerance, relativeTolerance, onStep, signal } = options;
  if (!Number.isInteger(steps) || steps < 1) throw new ArgumentError('OdeLogLikelihoodOptions.steps', steps, 'a positive integer');
  const probes = options.probes ?? rademacher(rng);
  const n = data.shape[0]!;
  const [start, end] = transport.backwards();
  const zeros = tf.zeros([n]);
  const points = integrate(
    (s, [x]) => tf.tidy(() => {
      const t = new Float64Array(n).fill(1 - s);
      const probe = probes(x!.shape);
      let velocity: tf.Tensor | undefined;
      // ∇ₓ Σ v·probe is probeᵀ·(∂v/∂x); its product with the probe has the divergence as its mean
      const product = tf.grad((z: tf.Tensor) => {
        velocity = tf.keep(transport.velocity(transport.run(denoiser, z, t), z, t));
        return tf.sum(tf.mul(velocity, probe));
      })(x!);
      const divergence = tf.sum(tf.reshape(tf.mul(product, probe), [n, -1]), 1);
      const backwards = tf.neg(velocity!);
      velocity!.dispose();
      return [backwards, divergence];
    }),
    [data, zeros],
    evenTimes(1 - start, 1 - end, steps),
    { method, task: 'log likelihood', signal, ...(absoluteTolerance === undefined ? {} : { absoluteTolerance }), ...(relativeTolerance === undefined ? {} : { relativeTolerance }) },
  );
  let last: tf.Tensor[] = [];
  try {
    for await (const { index, y } of points) {
      if (index === steps) last = y;
      onStep?.(index, steps);
    }
  } catch (error) {
    tf.dispose(last);
    throw error;
  } finally {
    zeros.dispose();
  }
  const [noise, change] = last as [tf.Tensor, tf.Tensor1D];
  const logLikelihood = tf.tidy(() => {
    const size = noise.size / n;
    const prior = tf.sub((-size / 2) * Math.log(2 * Math.PI), tf.mul(0.5, tf.sum(tf.square(tf.reshape(noise, [n, -1])), 1)));
    return tf.sub(prior, change) as tf.Tensor1D;
  });
  change.dispose();
  return { logLikelihood, noise };
}

/** ±1, each half of the time. */
function rademacher(rng: Rng | undefined): (shape: readonly number[]) => tf.Tensor {
  if (rng === undefined) throw new ArgumentError('OdeLogLikelihoodOptions.rng', rng, 'an Rng (createRng(seed)), or probes');
  return (shape) => tf.tensor(Float32Array.from(rng.integers(0, 2, shape.reduce((a, b) => a * b, 1)), (bit) => 2 * bit - 1), [...shape]);
}

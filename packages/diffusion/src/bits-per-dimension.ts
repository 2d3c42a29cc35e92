import { throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { descending } from './ddpm.js';
import type { Denoiser, GaussianDiffusion } from './gaussian.js';
import { meanFlat, normalKL } from './likelihood.js';
import { type SamplingOptions, noiseSourceOf } from './sampling.js';

/** Options of {@link bitsPerDimension}. */
export interface BitsPerDimensionOptions extends Pick<SamplingOptions, 'rng' | 'noiseSource' | 'signal'> {
  /** Whether the predicted x₀ is clipped to [-1, 1]. Default `true`, as upstream: the bound is meant for pixels. */
  clipDenoised?: boolean;
}

/** One term of the variational bound; tensors are `[N]` and belong to the iterator until the next step. */
export interface BoundStep {
  /** Steps done, from 1. */
  step: number;
  total: number;
  /** Index into the process, from the last to 0. */
  t: number;
  /** The bound's term in bits per dimension. */
  vb: tf.Tensor1D;
  /** Mean squared error of the predicted x₀. */
  xStartMse: tf.Tensor1D;
  /** Mean squared error of the noise that the predicted x₀ implies. */
  mse: tf.Tensor1D;
}

/**
 * The terms of the variational bound on −log₂ p(x₀) per dimension, one step at a time from t = T − 1 to 0; each draws
 * its own noise. Upstream: the loop of `calc_bpd_loop`.
 *
 * @param x0 `[N, …, C]` in [-1, 1]; borrowed until the end
 * @throws ArgumentError where there is neither an `rng` nor a `noiseSource`
 */
export function bitsPerDimension(diffusion: GaussianDiffusion, denoiser: Denoiser, x0: tf.Tensor, options: BitsPerDimensionOptions): AsyncGenerator<BoundStep, void, void> {
  const draw = noiseSourceOf('bitsPerDimension', options);
  const { clipDenoised = true, signal } = options;
  const term = (t: number) =>
    tf.tidy(() => {
      const steps = new Int32Array(x0.shape[0]!).fill(t);
      const noise = draw(x0.shape);
      const x = diffusion.qSample(x0, steps, noise);
      const moments = diffusion.predict(denoiser, x, steps, { clipDenoised });
      return {
        vb: diffusion.variationalBound(moments, x0, x, steps),
        xStartMse: meanFlat(tf.square(tf.sub(moments.xStart, x0))),
        mse: meanFlat(tf.square(tf.sub(diffusion.epsilonFromStart(x, steps, moments.xStart), noise))),
      };
    });
  return (async function* () {
    const total = diffusion.steps;
    for (const t of descending(total)) {
      throwIfCancelled(signal, 'bitsPerDimension');
      const terms = term(t);
      try {
        yield { step: total - t, total, t, ...terms };
      } finally {
        tf.dispose(terms);
      }
      // timers and input get their turn
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  })();
}

/**
 * KL(q(x_T | x₀) ‖ N(0, 1)) in bits per dimension: what the bound pays for noise that is not quite standard. No model
 * takes part. Upstream: `_prior_bpd`.
 * @returns `[N]`
 */
export function priorBits(diffusion: GaussianDiffusion, x0: tf.Tensor): tf.Tensor1D {
  return tf.tidy(() => {
    const last = diffusion.tables.alphasCumprod.at(-1)!;
    const kl = normalKL(tf.mul(x0, Math.sqrt(last)), tf.scalar(Math.log(1 - last)), tf.scalar(0), tf.scalar(0));
    return tf.div(meanFlat(kl), Math.LN2) as tf.Tensor1D;
  });
}

/** The bound of each sample; tensors belong to the caller. */
export interface TotalBits {
  /** `[N]`: the sum of all terms and the prior's, in bits per dimension. */
  total: tf.Tensor1D;
  /** `[N]`. */
  prior: tf.Tensor1D;
  /** `[N, T]`, columns from t = T − 1 to 0, like the next two. */
  vb: tf.Tensor2D;
  xStartMse: tf.Tensor2D;
  mse: tf.Tensor2D;
}

const stack = (terms: tf.Tensor[]) => tf.stack(terms, 1) as tf.Tensor2D;

/** Runs {@link bitsPerDimension} to its end and sums it up. Upstream: `calc_bpd_loop`. */
export async function totalBitsPerDimension(diffusion: GaussianDiffusion, denoiser: Denoiser, x0: tf.Tensor, options: BitsPerDimensionOptions): Promise<TotalBits> {
  const columns = { vb: [] as tf.Tensor[], xStartMse: [] as tf.Tensor[], mse: [] as tf.Tensor[] };
  try {
    for await (const { vb, xStartMse, mse } of bitsPerDimension(diffusion, denoiser, x0, options)) {
      columns.vb.push(tf.clone(vb));
      columns.xStartMse.push(tf.clone(xStartMse));
      columns.mse.push(tf.clone(mse));
    }
    return tf.tidy(() => {
      const vb = stack(columns.vb);
      const prior = priorBits(diffusion, x0);
      const total = tf.add(tf.sum(vb, 1), prior) as tf.Tensor1D;
      return { total, prior, vb, xStartMse: stack(columns.xStartMse), mse: stack(columns.mse) } as unknown as Record<string, tf.Tensor>;
    }) as unknown as TotalBits;
  } finally {
    tf.dispose(columns);
  }
}

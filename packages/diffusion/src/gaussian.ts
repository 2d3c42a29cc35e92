import { ArgumentError, ShapeError } from '@tinyfusion/core';
import { stopGradient } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { type BetaSchedule, betas } from './betas.js';
import { evaluate } from './evaluate.js';
import { discretisedLogLikelihood, meanFlat, normalKL } from './likelihood.js';
import { spacedTimesteps } from './respacing.js';

/**
 * A model as a process sees it: noisy data and timesteps in, prediction out; classes, guidance and hooks are closed
 * over. `t` is float32 `[N]` in the model's own timesteps (0 … steps − 1 before respacing).
 */
export type Denoiser = (x: tf.Tensor, t: tf.Tensor1D) => tf.Tensor;

/**
 * A {@link Denoiser} for samplers, which may promise its output, as a model does that runs elsewhere. `x` and `t` are its
 * to read until it settles, and the output is then the sampler's; tensors that it makes before its first wait and needs
 * after it are to be kept (`tf.keep`). Training takes synchronous ones, as gradients do.
 */
export type AsyncDenoiser = (x: tf.Tensor, t: tf.Tensor1D) => tf.Tensor | Promise<tf.Tensor>;

/** Indices into the (respaced) process, one for each sample; plain numbers, so that tables stay in float64. */
export type Timesteps = ArrayLike<number>;

/** Options of {@link GaussianDiffusion}; the defaults are DiT's. */
export interface GaussianDiffusionOptions {
  /** Default `'linear'`. */
  schedule?: BetaSchedule;
  /** Steps that the model was trained with. Default 1000. */
  steps?: number;
  /** Fewer steps to sample with; see {@link spacedTimesteps}. Default `''`, all. */
  respacing?: string;
  /** What the model predicts: the noise, the clean data, or the data one step before. Default `'epsilon'`. */
  prediction?: 'epsilon' | 'start' | 'previous';
  /** Default `'learned-range'`: the model's second half of channels blends β and the posterior variance. */
  variance?: 'learned-range' | 'learned' | 'fixed-small' | 'fixed-large';
  /** Default `'mse'`: mean squared error, plus the variational bound where the variance is learned. */
  loss?: 'mse' | 'rescaled-mse' | 'kl' | 'rescaled-kl';
}

/** Moments of p(xₜ₋₁ | xₜ), shaped like x. */
export type PredictedMoments = {
  mean: tf.Tensor;
  logVariance: tf.Tensor;
  /** The prediction of x₀. */
  xStart: tf.Tensor;
};

/** Loss terms of each sample, `[N]`. */
export interface TrainingTerms {
  loss: tf.Tensor1D;
  /** Mean squared error of the prediction; absent for the KL losses. */
  mse?: tf.Tensor1D;
  /** Variational bound in bits per dimension (rescaled where the loss says so); absent where the variance is fixed. */
  vb?: tf.Tensor1D;
}

/** Numbers of the process at each of its steps, in float64. */
export interface GaussianTables {
  betas: Float64Array;
  alphasCumprod: Float64Array;
  /** 1 at the first step. */
  alphasCumprodPrev: Float64Array;
  /** 0 at the last step. */
  alphasCumprodNext: Float64Array;
  posteriorVariance: Float64Array;
  /** Its logarithm, the first entry replaced by the second. */
  posteriorLogVarianceClipped: Float64Array;
  posteriorMeanCoef1: Float64Array;
  posteriorMeanCoef2: Float64Array;
}

/**
 * Gaussian diffusion (Ho et al. 2020; Nichol & Dhariwal 2021) on tensors `[N, …, C]` of any rank. Where the variance is
 * learned the model puts out 2·C channels. Upstream: `GaussianDiffusion` and `SpacedDiffusion` of guided-diffusion.
 */
export class GaussianDiffusion {
  /** Number of steps of this process, after respacing. */
  readonly steps: number;
  /** The model's timestep for each step. */
  readonly timestepMap: readonly number[];
  readonly tables: Readonly<GaussianTables>;
  readonly prediction: 'epsilon' | 'start' | 'previous';
  readonly variance: 'learned-range' | 'learned' | 'fixed-small' | 'fixed-large';
  readonly loss: 'mse' | 'rescaled-mse' | 'kl' | 'rescaled-kl';
  /** Steps before respacing. */
  readonly originalSteps: number;

  constructor({ schedule = 'linear', steps = 1000, respacing = '', prediction = 'epsilon', variance = 'learned-range', loss = 'mse' }: GaussianDiffusionOptions = {}) {
    checkOneOf('prediction', prediction, ['epsilon', 'start', 'previous']);
    checkOneOf('variance', variance, ['learned-range', 'learned', 'fixed-small', 'fixed-large']);
    checkOneOf('loss', loss, ['mse', 'rescaled-mse', 'kl', 'rescaled-kl']);
    const original = betas(schedule, steps);
    // a process that ends in noise alone has no way back: 1/√ᾱ
    if (original.at(-1)! >= 1) throw new ArgumentError('GaussianDiffusionOptions.steps', steps, "at least 21 for the 'linear' schedule, whose last β is 20/steps; for fewer steps of sampling leave them at 1000 and give respacing");
    this.originalSteps = steps;
    this.timestepMap = spacedTimesteps(steps, respacing);
    this.tables = makeTables(respaced(original, this.timestepMap));
    this.steps = this.timestepMap.length;
    this.prediction = prediction;
    this.variance = variance;
    this.loss = loss;
  }

  /** Whether the model puts out twice the channels. */
  get learnsVariance(): boolean {
    return this.variance === 'learned-range' || this.variance === 'learned';
  }

  /** q(xₜ | x₀): √ᾱₜ x₀ + √(1 − ᾱₜ) ε. */
  qSample(x0: tf.Tensor, t: Timesteps, noise: tf.Tensor): tf.Tensor {
    const { alphasCumprod } = this.tables;
    return tf.tidy(() => tf.add(tf.mul(this.coefficient(x0, t, (i) => Math.sqrt(alphasCumprod[i]!)), x0), tf.mul(this.coefficient(x0, t, (i) => Math.sqrt(1 - alphasCumprod[i]!)), noise)));
  }

  /** Mean of q(xₜ₋₁ | xₜ, x₀). */
  posteriorMean(x0: tf.Tensor, x: tf.Tensor, t: Timesteps): tf.Tensor {
    const { posteriorMeanCoef1: c1, posteriorMeanCoef2: c2 } = this.tables;
    return tf.tidy(() => tf.add(tf.mul(this.coefficient(x, t, (i) => c1[i]!), x0), tf.mul(this.coefficient(x, t, (i) => c2[i]!), x)));
  }

  /** x₀ from xₜ and the noise in it. */
  startFromEpsilon(x: tf.Tensor, t: Timesteps, epsilon: tf.Tensor): tf.Tensor {
    const a = this.tables.alphasCumprod;
    return tf.tidy(() => tf.sub(tf.mul(this.coefficient(x, t, (i) => Math.sqrt(1 / a[i]!)), x), tf.mul(this.coefficient(x, t, (i) => Math.sqrt(1 / a[i]! - 1)), epsilon)));
  }

  /** The noise in xₜ, given x₀. */
  epsilonFromStart(x: tf.Tensor, t: Timesteps, x0: tf.Tensor): tf.Tensor {
    const a = this.tables.alphasCumprod;
    return tf.tidy(() => tf.div(tf.sub(tf.mul(this.coefficient(x, t, (i) => Math.sqrt(1 / a[i]!)), x), x0), this.coefficient(x, t, (i) => Math.sqrt(1 / a[i]! - 1))));
  }

  /** Runs the model at steps `t`, with its own timesteps. */
  run(denoiser: Denoiser, x: tf.Tensor, t: Timesteps): tf.Tensor {
    return tf.tidy(() => {
      const output = denoiser(x, tf.tensor1d(this.modelTimes(t)));
      this.checkOutput(output, x);
      return output;
    });
  }

  private modelTimes(t: Timesteps): Float32Array {
    return Float32Array.from(t, (i) => this.timestepMap[i]!);
  }

  /**
   * @param of whose output it is, for the message
   * @throws ShapeError where it is not shaped like x, with twice the channels where the variance is learned
   */
  checkOutput(output: tf.Tensor, x: tf.Tensor, of = 'denoiser'): void {
    const wanted = [...x.shape.slice(0, -1), x.shape.at(-1)! * (this.learnsVariance ? 2 : 1)];
    if (String(output.shape) !== String(wanted)) throw new ShapeError(`the ${of}'s output (variance ${this.variance})`, output.shape, wanted.join(', '));
  }

  /**
   * Moments of p(xₜ₋₁ | xₜ) from what the model put out.
   * @param output as from {@link run}
   * @param options `clipDenoised`: whether the predicted x₀ is clipped to [-1, 1], or by a number to ± that. Default `true`, as upstream's function
   */
  moments(output: tf.Tensor, x: tf.Tensor, t: Timesteps, { clipDenoised = true }: { clipDenoised?: boolean | number } = {}): PredictedMoments {
    const { betas: b, posteriorVariance, posteriorLogVarianceClipped } = this.tables;
    return tf.tidy(() => {
      const [prediction, values] = this.learnsVariance ? (tf.split(output, 2, -1) as [tf.Tensor, tf.Tensor]) : [output, undefined];
      let logVariance: tf.Tensor;
      if (values !== undefined && this.variance === 'learned') logVariance = values;
      else if (values !== undefined) {
        const low = this.coefficient(x, t, (i) => posteriorLogVarianceClipped[i]!);
        const high = this.coefficient(x, t, (i) => Math.log(b[i]!));
        const fraction = tf.div(tf.add(values, 1), 2);
        logVariance = tf.add(tf.mul(fraction, high), tf.mul(tf.sub(1, fraction), low));
      } else {
        const fixed = this.variance === 'fixed-large' ? (i: number) => Math.log(i === 0 ? (posteriorVariance[1] ?? b[0]!) : b[i]!) : (i: number) => posteriorLogVarianceClipped[i]!;
        logVariance = tf.broadcastTo(this.coefficient(x, t, fixed), x.shape);
      }
      let xStart: tf.Tensor;
      if (this.prediction === 'start') xStart = tf.clone(prediction);
      else if (this.prediction === 'epsilon') xStart = this.startFromEpsilon(x, t, prediction);
      else {
        const { posteriorMeanCoef1: c1, posteriorMeanCoef2: c2 } = this.tables;
        xStart = tf.sub(tf.mul(this.coefficient(x, t, (i) => 1 / c1[i]!), prediction), tf.mul(this.coefficient(x, t, (i) => c2[i]! / c1[i]!), x));
      }
      if (clipDenoised !== false) xStart = tf.clipByValue(xStart, -Number(clipDenoised), Number(clipDenoised));
      const mean = this.prediction === 'previous' ? tf.clone(prediction) : this.posteriorMean(xStart, x, t);
      return { mean, logVariance, xStart };
    });
  }

  /** {@link moments} of a fresh run of the model. Upstream: `p_mean_variance`. */
  predict(denoiser: Denoiser, x: tf.Tensor, t: Timesteps, options: { clipDenoised?: boolean | number } = {}): PredictedMoments {
    return tf.tidy(() => this.moments(this.run(denoiser, x, t), x, t, options));
  }

  /**
   * {@link predict} for samplers, whose model may promise its output: hands the moments to `use`, which runs inside a tidy.
   * @returns what `use` returns, promised where the model's output is
   */
  predicting<R extends tf.TensorContainer>(denoiser: AsyncDenoiser, x: tf.Tensor, t: Timesteps, options: { clipDenoised?: boolean | number }, use: (moments: PredictedMoments) => R): R | Promise<R> {
    return evaluate(denoiser, () => [tf.clone(x), tf.tensor1d(this.modelTimes(t))], (output) => {
      this.checkOutput(output, x);
      return use(this.moments(output, x, t, options));
    });
  }

  /**
   * The variational bound at steps `t` in bits per dimension: KL(q(xₜ₋₁ | xₜ, x₀) ‖ p), and at t = 0 the negative log
   * likelihood of a discretised Gaussian. Upstream: `_vb_terms_bpd`.
   * @returns `[N]`
   */
  variationalBound({ mean, logVariance }: Pick<PredictedMoments, 'mean' | 'logVariance'>, x0: tf.Tensor, x: tf.Tensor, t: Timesteps): tf.Tensor1D {
    return tf.tidy(() => {
      const trueMean = this.posteriorMean(x0, x, t);
      const trueLogVariance = this.coefficient(x, t, (i) => this.tables.posteriorLogVarianceClipped[i]!);
      const kl = tf.div(meanFlat(normalKL(trueMean, trueLogVariance, mean, logVariance)), Math.LN2) as tf.Tensor1D;
      return this.withDecoderLikelihood(kl, { mean, logVariance }, x0, t);
    });
  }

  /** Replaces a divergence by the discretised negative log likelihood of x₀, in bits, where t = 0. */
  withDecoderLikelihood(divergence: tf.Tensor1D, { mean, logVariance }: Pick<PredictedMoments, 'mean' | 'logVariance'>, x0: tf.Tensor, t: Timesteps): tf.Tensor1D {
    const first = Float32Array.from(t, (i) => (i === 0 ? 1 : 0));
    if (!first.includes(1)) return tf.clone(divergence);
    return tf.tidy(() => {
      const bits = tf.div(meanFlat(discretisedLogLikelihood(x0, mean, tf.mul(logVariance, 0.5))), -Math.LN2);
      const mask = tf.tensor1d(first);
      return tf.add(tf.mul(mask, bits), tf.mul(tf.sub(1, mask), divergence));
    });
  }

  /**
   * Loss of each sample. With a learned variance the bound trains the variance alone: the prediction in it is detached.
   * Upstream: `training_losses`.
   *
   * @param x0 `[N, …, C]` clean data
   * @param t steps, one for each sample
   * @param noise like x₀
   */
  trainingLosses(denoiser: Denoiser, x0: tf.Tensor, t: Timesteps, noise: tf.Tensor): TrainingTerms {
    return tf.tidy(() => {
      const x = this.qSample(x0, t, noise);
      return { ...this.lossTerms(this.run(denoiser, x, t), x0, x, t, noise) };
    }) as unknown as TrainingTerms;
  }

  /**
   * {@link trainingLosses} of an output that is there already.
   * @throws ShapeError where it has not the channels that the variance needs, or data and noise are not shaped alike
   */
  lossTerms(output: tf.Tensor, x0: tf.Tensor, x: tf.Tensor, t: Timesteps, noise: tf.Tensor): TrainingTerms {
    this.checkOutput(output, x);
    for (const [name, tensor] of [['x0', x0], ['noise', noise]] as const) if (String(tensor.shape) !== String(x.shape)) throw new ShapeError(`lossTerms: ${name}`, tensor.shape, x.shape.join(', '));
    return tf.tidy((): Record<string, tf.Tensor1D> => {
      if (this.loss === 'kl' || this.loss === 'rescaled-kl') {
        const bound = this.variationalBound(this.moments(output, x, t, { clipDenoised: false }), x0, x, t);
        return { loss: this.loss === 'kl' ? bound : tf.mul(bound, this.steps) };
      }
      const [prediction, values] = this.learnsVariance ? (tf.split(output, 2, -1) as [tf.Tensor, tf.Tensor]) : [output, undefined];
      const target = this.prediction === 'epsilon' ? noise : this.prediction === 'start' ? x0 : this.posteriorMean(x0, x, t);
      const mse = meanFlat(tf.square(tf.sub(target, prediction)));
      if (values === undefined) return { loss: tf.clone(mse), mse };
      const detached = tf.concat([stopGradient(prediction), values], -1);
      let vb = this.variationalBound(this.moments(detached, x, t, { clipDenoised: false }), x0, x, t);
      if (this.loss === 'rescaled-mse') vb = tf.mul(vb, this.steps / 1000);
      return { loss: tf.add(mse, vb), mse, vb };
    }) as unknown as TrainingTerms;
  }

  /** A table's numbers at each sample's step, `[N, 1, …, 1]` for data shaped like `x`. */
  coefficient(x: tf.Tensor, t: Timesteps, value: (step: number) => number): tf.Tensor {
    if (t.length !== x.shape[0]) throw new ArgumentError('t', Array.from(t), `one step for each of the ${x.shape[0]} samples`);
    const values = Float32Array.from(t, (i) => {
      if (!Number.isInteger(i) || i < 0 || i >= this.steps) throw new ArgumentError('t', i, `an integer from 0 to ${this.steps - 1}`);
      return value(i);
    });
    return tf.tensor(values, [x.shape[0], ...x.shape.slice(1).map(() => 1)]);
  }
}

/** βs of the process that keeps only some steps: 1 − ᾱ of a kept step over ᾱ of the kept step before it. */
function respaced(original: Float64Array, kept: readonly number[]): Float64Array {
  const wanted = new Set(kept);
  const out: number[] = [];
  let product = 1;
  let last = 1;
  for (const [t, beta] of original.entries()) {
    product *= 1 - beta;
    if (!wanted.has(t)) continue;
    out.push(1 - product / last);
    last = product;
  }
  return Float64Array.from(out);
}

function checkOneOf(option: string, value: string, known: readonly string[]): void {
  if (!known.includes(value)) throw new ArgumentError(`GaussianDiffusionOptions.${option}`, value, `one of ${known.join(', ')}`);
}

function makeTables(b: Float64Array): GaussianTables {
  let product = 1;
  const alphasCumprod = b.map((beta) => (product *= 1 - beta));
  const alphasCumprodPrev = alphasCumprod.map((_, t) => (t === 0 ? 1 : alphasCumprod[t - 1]!));
  const alphasCumprodNext = alphasCumprod.map((_, t) => alphasCumprod[t + 1] ?? 0);
  const posteriorVariance = b.map((beta, t) => (beta * (1 - alphasCumprodPrev[t]!)) / (1 - alphasCumprod[t]!));
  return {
    betas: b,
    alphasCumprod,
    alphasCumprodPrev,
    alphasCumprodNext,
    posteriorVariance,
    posteriorLogVarianceClipped: posteriorVariance.map((v, t) => Math.log(t === 0 ? (posteriorVariance[1] ?? b[0]!) : v)),
    posteriorMeanCoef1: b.map((beta, t) => (beta * Math.sqrt(alphasCumprodPrev[t]!)) / (1 - alphasCumprod[t]!)),
    posteriorMeanCoef2: b.map((beta, t) => ((1 - alphasCumprodPrev[t]!) * Math.sqrt(1 - beta)) / (1 - alphasCumprod[t]!)),
  };
}

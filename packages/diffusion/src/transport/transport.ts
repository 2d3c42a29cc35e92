import { ArgumentError, type Rng, ShapeError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { evaluate } from '../evaluate.js';
import type { AsyncDenoiser, Denoiser } from '../gaussian.js';
import { meanFlat } from '../likelihood.js';
import { type DiffusionForm, type Interpolant, type InterpolantName, interpolants } from './interpolant.js';

/** What the model of a transport puts out. */
export type TransportPrediction = 'velocity' | 'noise' | 'score';

/** Options of {@link Transport}; the defaults are SiT's. */
export interface TransportOptions {
  /** Default `'linear'`. */
  path?: InterpolantName;
  /** Default `'velocity'`. */
  prediction?: TransportPrediction;
  /** Weight of the squared error of noise and score models; velocity models have none. Default `'none'`. */
  lossWeight?: 'none' | 'velocity' | 'likelihood';
  /** How far training keeps from the path's ends. Default: 1e-5 on VP, 1e-3 for noise and score models, else 0. */
  trainEpsilon?: number;
  /** How far sampling keeps from the path's ends. Default: 1e-3 on VP and for noise and score models, else 0. */
  sampleEpsilon?: number;
}

/** Which part of the path is asked for. */
export interface IntervalOptions {
  /** Default `false`: for sampling. */
  training?: boolean;
  /** Set for SDEs. */
  sde?: { form: DiffusionForm; lastStepSize: number } | undefined;
}

/**
 * Stochastic interpolants (Albergo & Vanden-Eijnden 2023) as SiT uses them (Ma et al. 2024): xₜ = α(t)·data + σ(t)·noise,
 * noise at t = 0, data at t = 1, and a model of the velocity, the noise, or the score. Works on tensors `[N, …]` of any
 * rank; model times are in [0, 1]. Upstream: `create_transport`, `Transport`.
 */
export class Transport {
  readonly path: Interpolant;
  readonly prediction: TransportPrediction;
  readonly lossWeight: 'none' | 'velocity' | 'likelihood';
  readonly trainEpsilon: number;
  readonly sampleEpsilon: number;

  /** @throws ArgumentError where an option is unknown, or an epsilon is not in [0, 0.5) */
  constructor({ path = 'linear', prediction = 'velocity', lossWeight = 'none', trainEpsilon, sampleEpsilon }: TransportOptions = {}) {
    if (!Object.hasOwn(interpolants, path)) throw new ArgumentError('TransportOptions.path', path, `one of ${Object.keys(interpolants).join(', ')}`);
    if (!['velocity', 'noise', 'score'].includes(prediction)) throw new ArgumentError('TransportOptions.prediction', prediction, "'velocity', 'noise' or 'score'");
    if (!['none', 'velocity', 'likelihood'].includes(lossWeight)) throw new ArgumentError('TransportOptions.lossWeight', lossWeight, "'none', 'velocity' or 'likelihood'");
    if (prediction === 'velocity' && lossWeight !== 'none') throw new ArgumentError('TransportOptions.lossWeight', lossWeight, "'none' for velocity models: their loss has no weight");
    this.path = interpolants[path];
    this.prediction = prediction;
    this.lossWeight = lossWeight;
    const guarded = path === 'vp' || prediction !== 'velocity';
    this.trainEpsilon = trainEpsilon ?? (path === 'vp' ? 1e-5 : guarded ? 1e-3 : 0);
    this.sampleEpsilon = sampleEpsilon ?? (guarded ? 1e-3 : 0);
    for (const name of ['trainEpsilon', 'sampleEpsilon'] as const) {
      if (!(this[name] >= 0 && this[name] < 0.5)) throw new ArgumentError(`TransportOptions.${name}`, this[name], 'a number in [0, 0.5)');
    }
  }

  /** Start and end of the path that can be computed on, away from divisions by zero. Upstream: `check_interval`. */
  interval({ training = false, sde }: IntervalOptions = {}): [start: number, end: number] {
    const epsilon = training ? this.trainEpsilon : this.sampleEpsilon;
    const end = 1 - (sde === undefined || sde.lastStepSize === 0 ? epsilon : sde.lastStepSize);
    if (this.path.name === 'vp') return [0, end];
    if (this.prediction === 'velocity' && sde === undefined) return [0, 1];
    return [this.prediction !== 'velocity' || sde?.form === 'sbdm' ? epsilon : 0, end];
  }

  /**
   * Where runs from data to noise start and end: {@link interval} mirrored, as upstream's `check_interval` has it, which is
   * the interval itself but on the `'vp'` path. There a noise model starts at the interval's own end: at 1, where σ = 0,
   * its velocity is infinite (upstream's results are NaN).
   */
  backwards(): [start: number, end: number] {
    const [start, end] = this.interval();
    return this.path.name === 'vp' && this.prediction === 'noise' ? [end, start] : [1 - start, 1 - end];
  }

  /** Training times of `n` samples, uniform over {@link interval}. */
  drawTimes(rng: Rng, n: number): Float32Array<ArrayBuffer> {
    const [start, end] = this.interval({ training: true });
    return rng.uniform(n).map((u) => u * (end - start) + start);
  }

  /** xₜ. @param data `[N, …]` @param t one for each sample, in [0, 1] @param noise like data */
  interpolate(data: tf.Tensor, t: ArrayLike<number>, noise: tf.Tensor): tf.Tensor {
    return tf.tidy(() => tf.add(tf.mul(this.coefficient(data, t, this.path.alpha), data), tf.mul(this.coefficient(data, t, this.path.sigma), noise)));
  }

  /** dxₜ/dt of one path: α'·data + σ'·noise, which a velocity model learns. Arguments as in {@link interpolate}. */
  velocityTarget(data: tf.Tensor, t: ArrayLike<number>, noise: tf.Tensor): tf.Tensor {
    return tf.tidy(() => tf.add(tf.mul(this.coefficient(data, t, this.path.alphaRate), data), tf.mul(this.coefficient(data, t, this.path.sigmaRate), noise)));
  }

  /** Runs the model. @throws ShapeError where its output is not shaped like `x` */
  run(denoiser: Denoiser, x: tf.Tensor, t: ArrayLike<number>): tf.Tensor {
    return tf.tidy(() => {
      const output = denoiser(x, tf.tensor1d(Float32Array.from(t)));
      checkOutput(output, x);
      return output;
    });
  }

  /**
   * {@link run} for samplers, whose model may promise its output: hands it to `use`, which runs inside a tidy.
   * @returns what `use` returns, promised where the model's output is
   */
  running<R extends tf.TensorContainer>(denoiser: AsyncDenoiser, x: tf.Tensor, t: ArrayLike<number>, use: (output: tf.Tensor) => R): R | Promise<R> {
    return evaluate(denoiser, () => [tf.clone(x), tf.tensor1d(Float32Array.from(t))], (output) => {
      checkOutput(output, x);
      return use(output);
    });
  }

  /**
   * Loss of each sample. Upstream: `training_losses`.
   * @param data `[N, …]`, upstream's x1
   * @param t as from {@link drawTimes}
   * @param noise like data, upstream's x0
   * @returns `[N]`
   * @throws ArgumentError where a time is not in [0, 1]
   */
  trainingLosses(denoiser: Denoiser, data: tf.Tensor, t: ArrayLike<number>, noise: tf.Tensor): { loss: tf.Tensor1D } {
    const outside = Array.from(t).find((s) => !(s >= 0 && s <= 1));
    if (outside !== undefined) throw new ArgumentError('Transport.trainingLosses: t', outside, 'times in [0, 1], noise being at 0 and data at 1');
    return tf.tidy(() => this.lossTerms(this.run(denoiser, this.interpolate(data, t, noise), t), data, t, noise));
  }

  /** {@link trainingLosses} of an output that is there already. */
  lossTerms(output: tf.Tensor, data: tf.Tensor, t: ArrayLike<number>, noise: tf.Tensor): { loss: tf.Tensor1D } {
    if (String(noise.shape) !== String(data.shape)) throw new ShapeError('Transport.trainingLosses: noise', noise.shape, data.shape.join(', '));
    return tf.tidy(() => {
      if (this.prediction === 'velocity') return { loss: meanFlat(tf.square(tf.sub(output, this.velocityTarget(data, t, noise)))) };
      const { path } = this;
      const error = this.prediction === 'noise' ? tf.sub(output, noise) : tf.add(tf.mul(output, this.coefficient(data, t, path.sigma)), noise);
      const squared = tf.square(error);
      if (this.lossWeight === 'none') return { loss: meanFlat(squared) };
      const weight = this.lossWeight === 'velocity' ? (s: number) => (path.scoreWeight(s) / path.sigma(s)) ** 2 : (s: number) => path.scoreWeight(s) / path.sigma(s) ** 2;
      return { loss: meanFlat(tf.mul(this.coefficient(data, t, weight), squared)) };
    });
  }

  /** Velocity of the probability flow, from what the model put out for `x`. Upstream: `get_drift`. */
  velocity(output: tf.Tensor, x: tf.Tensor, t: ArrayLike<number>): tf.Tensor {
    if (this.prediction === 'velocity') return tf.clone(output);
    return tf.tidy(() => this.velocityFromScore(this.score(output, x, t), x, t));
  }

  /** ∇ log p of `x`, from what the model put out for it. Upstream: `get_score`. */
  score(output: tf.Tensor, x: tf.Tensor, t: ArrayLike<number>): tf.Tensor {
    if (this.prediction === 'score') return tf.clone(output);
    if (this.prediction === 'velocity') return this.scoreFromVelocity(output, x, t);
    return tf.tidy(() => tf.mul(output, this.coefficient(x, t, (s) => -1 / this.path.sigma(s))));
  }

  /** (α/α'·v − x) / (σ² − α/α'·σ'σ). Upstream: `get_score_from_velocity`. */
  scoreFromVelocity(velocity: tf.Tensor, x: tf.Tensor, t: ArrayLike<number>): tf.Tensor {
    const { alpha, alphaRate, sigma, sigmaRate } = this.path;
    return tf.tidy(() => {
      const ratio = (s: number) => alpha(s) / alphaRate(s);
      const top = tf.sub(tf.mul(this.coefficient(x, t, ratio), velocity), x);
      return tf.mul(top, this.coefficient(x, t, (s) => 1 / (sigma(s) ** 2 - ratio(s) * sigmaRate(s) * sigma(s))));
    });
  }

  /** (α/α'·v − x) / (α/α'·σ' − σ). Upstream: `get_noise_from_velocity`. */
  noiseFromVelocity(velocity: tf.Tensor, x: tf.Tensor, t: ArrayLike<number>): tf.Tensor {
    const { alpha, alphaRate, sigma, sigmaRate } = this.path;
    return tf.tidy(() => {
      const ratio = (s: number) => alpha(s) / alphaRate(s);
      const top = tf.sub(tf.mul(this.coefficient(x, t, ratio), velocity), x);
      return tf.mul(top, this.coefficient(x, t, (s) => 1 / (ratio(s) * sigmaRate(s) - sigma(s))));
    });
  }

  /** α'/α·x + ((α'/α)σ² − σσ')·score. Upstream: `get_velocity_from_score`. */
  velocityFromScore(score: tf.Tensor, x: tf.Tensor, t: ArrayLike<number>): tf.Tensor {
    const { logAlphaRate, scoreWeight } = this.path;
    return tf.tidy(() => tf.add(tf.mul(this.coefficient(x, t, logAlphaRate), x), tf.mul(this.coefficient(x, t, scoreWeight), score)));
  }

  /** The model's idea of the data behind `x`: (x + σ²·score)/α (Tweedie's formula). */
  dataFromScore(score: tf.Tensor, x: tf.Tensor, t: ArrayLike<number>): tf.Tensor {
    const { alpha, sigma } = this.path;
    return tf.tidy(() => tf.add(tf.mul(x, this.coefficient(x, t, (s) => 1 / alpha(s))), tf.mul(score, this.coefficient(x, t, (s) => sigma(s) ** 2 / alpha(s)))));
  }

  /** A function of each sample's time, `[N, 1, …, 1]` for data shaped like `x`. */
  coefficient(x: tf.Tensor, t: ArrayLike<number>, value: (t: number) => number): tf.Tensor {
    if (t.length !== x.shape[0]) throw new ArgumentError('t', Array.from(t), `one time for each of the ${x.shape[0]} samples`);
    return tf.tensor(Float32Array.from(t, value), [x.shape[0], ...x.shape.slice(1).map(() => 1)]);
  }
}

function checkOutput(output: tf.Tensor, x: tf.Tensor): void {
  if (String(output.shape) !== String(x.shape)) throw new ShapeError("the denoiser's output", output.shape, x.shape.join(', '));
}

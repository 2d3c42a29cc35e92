import { type Rng, partOfNormal } from '@tinyfusion/core';
import { type GaussianDiffusion, Transport } from '@tinyfusion/diffusion';
import { distillationTerms, velocityDistillationTerms } from '@tinyfusion/distill';
import { type DiT, MAR, type MARDraws, SiT, TokenMask, drawMAR, marDiffusion, marHeadInputs } from '@tinyfusion/models';
import { type HookOptions, randomNormal } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { diffusionOf } from './diffusion-of.js';
import type { LatentBatch } from './latents.js';
import { type BatchPart, rowsOf } from './loop.js';

/** Models that recipes train, cut and recover. */
export type Prunable = DiT | SiT | MAR;

/** One training step's draws: everything random in it, so that a student and its teacher see the same. */
export interface TrainingDraw<M> {
  /** What the model makes of them. */
  forward(model: M, hooks?: HookOptions): tf.Tensor;
  /** What that costs, by sample or by token. */
  terms(output: tf.Tensor): { loss: tf.Tensor1D; mse: tf.Tensor1D };
  /** What it costs when a teacher is to be followed too, with weight `alpha`. */
  distillation(student: tf.Tensor, teacher: tf.Tensor, alpha: number): { loss: tf.Tensor1D; mse: tf.Tensor1D };
}

/** How a family of models is trained; the recipes know nothing else of it. */
export interface Objective<M> {
  /**
   * Draws a step on a batch, whose tensors are borrowed; inside a tidy.
   * @param part the rows to compute, which are drawn as they are for the whole batch. Default: all
   */
  draw(model: M, batch: LatentBatch, rng: Rng, part?: BatchPart): TrainingDraw<M>;
}

/**
 * DiT's: noise, and the variance by the bound where it is learned.
 * @param given the process. Default: the model's
 */
export function gaussianObjective(given?: GaussianDiffusion): Objective<DiT> {
  let own: GaussianDiffusion | undefined;
  return {
    draw({ config }, batch, rng, part) {
      if (own?.learnsVariance !== config.learnSigma) own = diffusionOf(config);
      const diffusion = given ?? own;
      const { latents: x0, labels } = inPart(batch, part);
      const n = part?.of ?? labels.shape[0];
      const t = ofPart(rng.integers(0, diffusion.steps, n), part);
      const noise = noiseLike(x0, rng, part);
      const drop = labelDrops(rng, n, config.classDropoutProb, part);
      const x = diffusion.qSample(x0, t, noise) as tf.Tensor4D;
      const time = tf.tensor1d(Float32Array.from(t, (i) => diffusion.timestepMap[i]!));
      return {
        forward: (model, hooks) => model.forward(x, time, labels, { drop, ...hooks }),
        terms: (output) => withMse(diffusion.lossTerms(output, x0, x, t, noise)),
        distillation: (student, teacher, alpha) => distillationTerms(diffusion, { student, teacher, x0, x, t, noise }, { alpha }),
      };
    },
  };
}

/** SiT's: the velocity of a transport. */
export function transportObjective(transport: Transport = new Transport()): Objective<SiT> {
  return {
    draw({ config }, batch, rng, part) {
      const { latents: data, labels } = inPart(batch, part);
      const n = part?.of ?? labels.shape[0];
      const t = ofPart(transport.drawTimes(rng, n), part);
      const noise = noiseLike(data, rng, part);
      const drop = labelDrops(rng, n, config.classDropoutProb, part);
      const x = transport.interpolate(data, t, noise) as tf.Tensor4D;
      const time = tf.tensor1d(t);
      return {
        forward: (model, hooks) => model.forward(x, time, labels, { drop, ...hooks }),
        terms: (output) => withMse(transport.lossTerms(output, data, t, noise)),
        distillation: (student, teacher, alpha) => velocityDistillationTerms(transport, { student, teacher, data, t, noise }, { alpha }),
      };
    },
  };
}

/** MAR's: the noise in each masked token, by its head. */
export function marObjective(diffusion: GaussianDiffusion = marDiffusion()): Objective<MAR> {
  return {
    draw(mar, batch, rng, part) {
      const { config, tokenChannels } = mar;
      const { latents, labels } = inPart(batch, part);
      const whole = drawMAR(mar, rng, part?.of ?? labels.shape[0]);
      const draws = part === undefined ? whole : partOfDraws(whole, part, config.diffusionBatchMul, tokenChannels);
      const { t } = draws;
      const { x0, x, noise } = marHeadInputs(mar, diffusion, latents, draws);
      const time = tf.tensor1d(Float32Array.from(t));
      return {
        forward: (model, hooks) => model.diffloss.net.forward(x, time, model.headConditions(latents, labels, draws, hooks)),
        terms: (output) => withMse(diffusion.lossTerms(output, x0, x, t, noise)),
        distillation: (student, teacher, alpha) => distillationTerms(diffusion, { student, teacher, x0, x, t, noise }, { alpha }),
      };
    },
  };
}

/** The draws of some samples; the head's rows are all samples' masked tokens, `repeats` times over. */
function partOfDraws({ mask, drop, t, noise }: MARDraws, { start, size }: BatchPart, repeats: number, channels: number): MARDraws {
  const { length, maskedCount: rows, samples } = mask;
  const repeated = <T extends Float32Array | Int32Array>(all: T, width: number): T => {
    const part = new (all.constructor as new (length: number) => T)(repeats * size * rows * width);
    for (let k = 0; k < repeats; k++) part.set(all.subarray((k * samples + start) * rows * width, (k * samples + start + size) * rows * width), k * size * rows * width);
    return part;
  };
  return { mask: new TokenMask(size, length, mask.masked.subarray(start * length, (start + size) * length)), drop: drop.slice(start, start + size), t: repeated(t, 1), noise: repeated(noise, channels) };
}

/** The objective that a model's reference trains it with. */
export function objectiveOf<M extends Prunable>(model: M): Objective<M> {
  const objective = model instanceof MAR ? marObjective() : model instanceof SiT ? transportObjective() : gaussianObjective();
  return objective as unknown as Objective<M>;
}

/** Numbers of the whole batch that are of a part of it. */
function ofPart<T extends Float32Array | Int32Array>(all: T, part: BatchPart | undefined): T {
  return part === undefined ? all : (all.subarray(part.start, part.start + part.size) as T);
}

/** A batch's rows of a part, where the data set gave all. */
function inPart(batch: LatentBatch, part: BatchPart | undefined): LatentBatch {
  if (part === undefined || batch.labels.shape[0] === part.size) return batch;
  return { latents: rowsOf(batch.latents, part), labels: rowsOf(batch.labels, part) };
}

/** Noise of the part's samples, as it is drawn for the whole batch. */
function noiseLike(x: tf.Tensor4D, rng: Rng, part: BatchPart | undefined): tf.Tensor4D {
  if (part === undefined) return randomNormal<tf.Rank.R4>(rng, x.shape);
  const each = x.size / x.shape[0];
  return tf.tensor4d(partOfNormal(rng, part.of * each, { start: part.start * each, size: part.size * each }), x.shape);
}

/** `[N]`, 1 where a label is to be replaced by the null class. */
const labelDrops = (rng: Rng, n: number, probability: number, part: BatchPart | undefined): tf.Tensor1D => tf.tensor1d(Int32Array.from(ofPart(rng.uniform(n), part), (u) => (u < probability ? 1 : 0)), 'int32');

/** Where the loss is nothing but the squared error, it is both. */
const withMse = ({ loss, mse = loss }: { loss: tf.Tensor1D; mse?: tf.Tensor1D }) => ({ loss, mse });

import type { Rng } from '@tinyfusion/core';
import { GaussianDiffusion, Transport } from '@tinyfusion/diffusion';
import { distillationTerms, velocityDistillationTerms } from '@tinyfusion/distill';
import { type DiT, MAR, type MARDraws, SiT, TokenMask, drawMAR, marDiffusion, marHeadInputs } from '@tinyfusion/models';
import { type HookOptions, randomNormal } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import type { LatentBatch } from './latents.js';
import { type BatchPart, rowsOf } from './loop.js';

/** Models that recipes train, cut and recover. */
export type Prunable = DiT | SiT | MAR;

/** One training step's draws: everything random in it, so that a student and its teacher see the same. */
export interface TrainingDraw<M> {
  /** What the model makes of them. */
  forward(model: M, hooks?: HookOptions): tf.Tensor;
  /** The same for some samples of the batch alone. */
  part(part: BatchPart): TrainingDraw<M>;
  /** What that costs, by sample or by token. */
  terms(output: tf.Tensor): { loss: tf.Tensor1D; mse: tf.Tensor1D };
  /** What it costs when a teacher is to be followed too, with weight `alpha`. */
  distillation(student: tf.Tensor, teacher: tf.Tensor, alpha: number): { loss: tf.Tensor1D; mse: tf.Tensor1D };
}

/** How a family of models is trained; the recipes know nothing else of it. */
export interface Objective<M> {
  /** Draws a step on a batch, whose tensors are borrowed; inside a tidy. */
  draw(model: M, batch: LatentBatch, rng: Rng): TrainingDraw<M>;
}

/** DiT's: noise, and the variance by the bound. */
export function gaussianObjective(diffusion: GaussianDiffusion = new GaussianDiffusion()): Objective<DiT> {
  return {
    draw({ config }, { latents: x0, labels }, rng) {
      const n = labels.shape[0];
      const t = rng.integers(0, diffusion.steps, n);
      const noise = randomNormal<tf.Rank.R4>(rng, x0.shape);
      const drop = labelDrops(rng, n, config.classDropoutProb);
      const x = diffusion.qSample(x0, t, noise) as tf.Tensor4D;
      const drawn = (own: GaussianDraw): TrainingDraw<DiT> => {
        const time = tf.tensor1d(Float32Array.from(own.t, (i) => diffusion.timestepMap[i]!));
        return {
          forward: (model, hooks) => model.forward(own.x, time, own.labels, { drop: own.drop, ...hooks }),
          part: (part) => drawn({ x0: rowsOf(own.x0, part), x: rowsOf(own.x, part), noise: rowsOf(own.noise, part), labels: rowsOf(own.labels, part), drop: rowsOf(own.drop, part), t: own.t.slice(part.start, part.start + part.size) }),
          terms: (output) => withMse(diffusion.lossTerms(output, own.x0, own.x, own.t, own.noise)),
          distillation: (student, teacher, alpha) => distillationTerms(diffusion, { student, teacher, ...own }, { alpha }),
        };
      };
      return drawn({ x0, x, t, noise, labels, drop });
    },
  };
}

interface GaussianDraw {
  x0: tf.Tensor4D;
  x: tf.Tensor4D;
  noise: tf.Tensor4D;
  labels: tf.Tensor1D;
  drop: tf.Tensor1D;
  t: Int32Array;
}

/** SiT's: the velocity of a transport. */
export function transportObjective(transport: Transport = new Transport()): Objective<SiT> {
  return {
    draw({ config }, { latents: data, labels }, rng) {
      const n = labels.shape[0];
      const t = transport.drawTimes(rng, n);
      const noise = randomNormal<tf.Rank.R4>(rng, data.shape);
      const drop = labelDrops(rng, n, config.classDropoutProb);
      const x = transport.interpolate(data, t, noise) as tf.Tensor4D;
      const drawn = (own: TransportDraw): TrainingDraw<SiT> => {
        const time = tf.tensor1d(own.t);
        return {
          forward: (model, hooks) => model.forward(own.x, time, own.labels, { drop: own.drop, ...hooks }),
          part: (part) => drawn({ data: rowsOf(own.data, part), x: rowsOf(own.x, part), noise: rowsOf(own.noise, part), labels: rowsOf(own.labels, part), drop: rowsOf(own.drop, part), t: own.t.slice(part.start, part.start + part.size) }),
          terms: (output) => withMse(transport.lossTerms(output, own.data, own.t, own.noise)),
          distillation: (student, teacher, alpha) => velocityDistillationTerms(transport, { student, teacher, ...own }, { alpha }),
        };
      };
      return drawn({ data, x, t, noise, labels, drop });
    },
  };
}

interface TransportDraw {
  data: tf.Tensor4D;
  x: tf.Tensor4D;
  noise: tf.Tensor4D;
  labels: tf.Tensor1D;
  drop: tf.Tensor1D;
  t: ReturnType<Transport['drawTimes']>;
}

/** MAR's: the noise in each masked token, by its head. */
export function marObjective(diffusion: GaussianDiffusion = marDiffusion()): Objective<MAR> {
  return {
    draw(mar, batch, rng) {
      const { config, tokenChannels } = mar;
      const drawn = ({ latents, labels }: LatentBatch, draws: MARDraws): TrainingDraw<MAR> => {
        const { t } = draws;
        const { x0, x, noise } = marHeadInputs(mar, diffusion, latents, draws);
        const time = tf.tensor1d(Float32Array.from(t));
        return {
          forward: (model, hooks) => model.diffloss.net.forward(x, time, model.headConditions(latents, labels, draws, hooks)),
          part: (part) => drawn({ latents: rowsOf(latents, part), labels: rowsOf(labels, part) }, partOfDraws(draws, part, config.diffusionBatchMul, tokenChannels)),
          terms: (output) => withMse(diffusion.lossTerms(output, x0, x, t, noise)),
          distillation: (student, teacher, alpha) => distillationTerms(diffusion, { student, teacher, x0, x, t, noise }, { alpha }),
        };
      };
      return drawn(batch, drawMAR(mar, rng, batch.labels.shape[0]));
    },
  };
}

/** The draws of some samples; the head's rows are all samples' masked tokens, `repeats` times over. */
function partOfDraws({ mask, drop, t, noise }: MARDraws, { start, size }: BatchPart, repeats: number, channels: number): MARDraws {
  const { length, maskedCount: rows, samples } = mask;
  const ofPart = <T extends Float32Array | Int32Array>(all: T, width: number): T => {
    const part = new (all.constructor as new (length: number) => T)(repeats * size * rows * width);
    for (let k = 0; k < repeats; k++) part.set(all.subarray((k * samples + start) * rows * width, (k * samples + start + size) * rows * width), k * size * rows * width);
    return part;
  };
  return { mask: new TokenMask(size, length, mask.masked.subarray(start * length, (start + size) * length)), drop: drop.slice(start, start + size), t: ofPart(t, 1), noise: ofPart(noise, channels) };
}

/** The objective that a model's reference trains it with. */
export function objectiveOf<M extends Prunable>(model: M): Objective<M> {
  const objective = model instanceof MAR ? marObjective() : model instanceof SiT ? transportObjective() : gaussianObjective();
  return objective as unknown as Objective<M>;
}

/** `[N]`, 1 where a label is to be replaced by the null class. */
const labelDrops = (rng: Rng, n: number, probability: number): tf.Tensor1D => tf.tensor1d(Int32Array.from(rng.uniform(n), (u) => (u < probability ? 1 : 0)), 'int32');

/** Where the loss is nothing but the squared error, it is both. */
const withMse = ({ loss, mse = loss }: { loss: tf.Tensor1D; mse?: tf.Tensor1D }) => ({ loss, mse });

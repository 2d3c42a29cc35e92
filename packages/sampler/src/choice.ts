import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { AnyGroup } from './groups.js';
import { straightThrough } from './straight-through.js';
import { relaxedTopK, topKHot } from './top-k.js';

/** What one group draws on the CPU: the index of an option, or the layers of a relaxed group in the order in which they were drawn. */
export type Pick = readonly number[];

/** Number of gates of a group. */
export const gateCount = ({ options, size, relaxed }: AnyGroup): number => (relaxed === true ? size : options.length);

/** The first values of a group's gates under which an option's gate is the sum of its layers' `weights`, plus `init`; of relaxed ones, a layer's gate its weight. */
export function gateValues({ start, size, options, relaxed }: AnyGroup, weights: readonly number[], init: number): number[] {
  if (relaxed === true) return weights.slice(start, start + size).map((w) => init + w);
  return options.map((option) => option.reduce((sum, j) => sum + weights[start + j]!, init));
}

/** Gumbel-softmax, or Gumbel-top-k, with a hard value: `[N, gates]`. @param perturbed logits + noise, `[N, gates]` */
export function drawChoice(group: AnyGroup, perturbed: tf.Tensor2D, tau: number): tf.Tensor2D {
  // a relaxed group's sum may order its layers unlike the values it was made from
  const soft = softChoice(group, perturbed, tau);
  return straightThrough(hardChoice(group, group.relaxed === true ? perturbed : soft), soft);
}

/** The relaxed choice, `[N, gates]`. */
export function softChoice(group: AnyGroup, perturbed: tf.Tensor2D, tau: number): tf.Tensor2D {
  return group.relaxed === true ? relaxedTopK(perturbed, group.kept, tau) : tf.softmax(tf.div(perturbed, tau)) as tf.Tensor2D;
}

/** The choice with the highest values, `[N, gates]` of 0 and 1; the first where there are several. */
export function hardChoice(group: AnyGroup, values: tf.Tensor2D): tf.Tensor2D {
  if (group.relaxed === true) return topKHot(values, group.kept);
  if (values.shape[1] === 1) return tf.onesLike(values); // a group that keeps all: tfjs has no one-hot of depth 1
  return tf.tidy(() => tf.cast(tf.oneHot(tf.argMax(values, 1) as tf.Tensor1D, values.shape[1]), 'float32') as tf.Tensor2D);
}

/** Choices `[N, gates]` → masks `[N]`, one a layer. */
export function choiceMasks({ size, options, relaxed }: AnyGroup, choices: tf.Tensor2D): tf.Tensor1D[] {
  if (relaxed === true) return tf.unstack(choices, 1) as tf.Tensor1D[];
  const table = tf.tensor2d(options.flatMap((kept) => Array.from({ length: size }, (_, j) => (kept.includes(j) ? 1 : 0))), [options.length, size]);
  return tf.unstack(tf.matMul(choices, table), 1) as tf.Tensor1D[];
}

/** The draw of one group, on the CPU. @param perturbed logits + noise @throws ArgumentError where one is not finite */
export function pick(group: AnyGroup, perturbed: readonly number[]): Pick {
  if (!perturbed.every(Number.isFinite)) throw new ArgumentError(`gates of the group from layer ${group.start}, scaled, with noise`, perturbed, 'finite numbers; learning has diverged where gates are not: lower their learning rate');
  if (group.relaxed === true) return [...perturbed.keys()].sort((a, b) => perturbed[b]! - perturbed[a]!).slice(0, group.kept);
  return [perturbed.indexOf(perturbed.reduce((a, b) => Math.max(a, b)))];
}

/** A draw's values, as {@link drawChoice} gives them. */
export function pickedChoice(group: AnyGroup, picked: Pick): number[] {
  return Array.from({ length: gateCount(group) }, (_, i) => (picked.includes(i) ? 1 : 0));
}

/** Kept layers of a draw, as indices in the model, ascending. */
export function pickedLayers({ start, options, relaxed }: AnyGroup, picked: Pick): number[] {
  const kept = relaxed === true ? picked.toSorted((a, b) => a - b) : options[picked[0]!]!;
  return kept.map((j) => start + j);
}

/**
 * log p of a draw under softmax(logits); of a relaxed group's, in its order: Σ logit − log Σ exp(logits not drawn before).
 * The order's score stands for the choice's, whose own sums over N! orders: both have the same mean over draws.
 * @param logits `[1, gates]`
 */
export function logProbability(group: AnyGroup, logits: tf.Tensor2D, picked: Pick): tf.Scalar {
  if (group.relaxed === true) {
    const gone = picked.map((_, j) => Array.from({ length: group.size }, (__, i) => (picked.slice(0, j).includes(i) ? -1e9 : 0)));
    return tf.sub(tf.sum(tf.mul(logits, [pickedChoice(group, picked)])), tf.sum(tf.logSumExp(tf.add(logits, gone), 1))) as tf.Scalar;
  }
  return tf.sum(tf.mul(tf.logSoftmax(logits), [pickedChoice(group, picked)])) as tf.Scalar;
}

import * as tf from '@tensorflow/tfjs-core';
import type { OptionGroup } from './groups.js';
import { straightThrough } from './straight-through.js';

/** What one group draws on the CPU: the index of an option. */
export type Pick = readonly number[];

/** Number of gates of a group. */
export const gateCount = ({ options }: OptionGroup): number => options.length;

/** The first values of a group's gates under which an option's gate is the sum of its layers' `weights`, plus `init`. */
export function gateValues({ start, options }: OptionGroup, weights: readonly number[], init: number): number[] {
  return options.map((option) => option.reduce((sum, j) => sum + weights[start + j]!, init));
}

/** Gumbel-softmax with a hard value: `[N, gates]`. @param perturbed logits + noise, `[N, gates]` */
export function drawChoice(group: OptionGroup, perturbed: tf.Tensor2D, tau: number): tf.Tensor2D {
  const soft = softChoice(group, perturbed, tau);
  return straightThrough(hardChoice(group, soft), soft);
}

/** The relaxed choice, `[N, gates]`. */
export function softChoice(_group: OptionGroup, perturbed: tf.Tensor2D, tau: number): tf.Tensor2D {
  return tf.softmax(tf.div(perturbed, tau)) as tf.Tensor2D;
}

/** The choice with the highest values, `[N, gates]` of 0 and 1; the first where there are several. */
export function hardChoice(_group: OptionGroup, values: tf.Tensor2D): tf.Tensor2D {
  return tf.tidy(() => tf.cast(tf.oneHot(tf.argMax(values, 1) as tf.Tensor1D, values.shape[1]), 'float32') as tf.Tensor2D);
}

/** Choices `[N, gates]` → masks `[N]`, one a layer. */
export function choiceMasks({ size, options }: OptionGroup, choices: tf.Tensor2D): tf.Tensor1D[] {
  const table = tf.tensor2d(options.flatMap((kept) => Array.from({ length: size }, (_, j) => (kept.includes(j) ? 1 : 0))), [options.length, size]);
  return tf.unstack(tf.matMul(choices, table), 1) as tf.Tensor1D[];
}

/** The draw of one group, on the CPU. @param perturbed logits + noise */
export function pick(_group: OptionGroup, perturbed: readonly number[]): Pick {
  return [perturbed.indexOf(perturbed.reduce((a, b) => Math.max(a, b)))];
}

/** A draw's values, as {@link drawChoice} gives them. */
export function pickedChoice(group: OptionGroup, picked: Pick): number[] {
  return Array.from({ length: gateCount(group) }, (_, i) => (picked.includes(i) ? 1 : 0));
}

/** Kept layers of a draw, as indices in the model, ascending. */
export function pickedLayers({ start, options }: OptionGroup, picked: Pick): number[] {
  return options[picked[0]!]!.map((j) => start + j);
}

/** log p of a draw under softmax(logits). @param logits `[1, gates]` */
export function logProbability(group: OptionGroup, logits: tf.Tensor2D, picked: Pick): tf.Scalar {
  return tf.sum(tf.mul(tf.logSoftmax(logits), [pickedChoice(group, picked)])) as tf.Scalar;
}

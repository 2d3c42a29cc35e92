import { ArgumentError, ShapeError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { defineOp } from './op.js';
import { axes } from './shape.js';

/** Kernel name of the row norms: inputs x `[rows, D]`, gain? and shift? `[groups, D]`; attributes one, epsilon. */
export const NORM = 'TinyFusionNorm';
/** Its gradients: inputs dy, x, gain?; outputs dx, dGain, dShift. */
export const NORM_GRAD = 'TinyFusionNormGrad';
/** Kernel name of {@link groupNorm}: inputs x, weight, bias; attributes groups, epsilon. */
export const GROUP_NORM = 'TinyFusionGroupNorm';
/** Its gradients: inputs dy, x, weight; outputs dx, dWeight, dBias. */
export const GROUP_NORM_GRAD = 'TinyFusionGroupNormGrad';

type NormInputs = { x: tf.Tensor2D; gain: tf.Tensor2D | undefined; shift: tf.Tensor2D | undefined };

/** x̂·(one + gain) + shift, gain and shift one row for every rows/groups rows of x. */
const normOp = defineOp<NormInputs, { one: number; epsilon: number }, tf.Tensor2D>({
  name: NORM,
  reference: ({ x, gain, shift }, { one, epsilon }) => {
    const [rows, d] = x.shape;
    const { mean, variance } = tf.moments(x, 1, true);
    let y = tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, epsilon)));
    const groups = (gain ?? shift)?.shape[0] ?? 1;
    y = tf.reshape(y, [groups, rows / groups, d]);
    if (gain !== undefined) y = tf.mul(y, tf.expandDims(tf.add(gain, one), 1));
    if (shift !== undefined) y = tf.add(y, tf.expandDims(shift, 1));
    return tf.reshape(y, [rows, d]);
  },
  gradient: (run, dy, { x, gain }, attributes) => {
    const [dx, dGain, dShift] = run(NORM_GRAD, { dy, x, gain }, attributes);
    return { x: () => dx!, gain: () => dGain!, shift: () => dShift! };
  },
});

/** Options of {@link layerNorm} and {@link modulatedNorm}. */
export interface NormOptions {
  /** Added to the variance. Default 1e-6, as in DiT. */
  epsilon?: number;
}

/**
 * Layer normalisation over the last axis, (x − mean)/√(variance + ε), then · weight + bias where given (both or neither).
 *
 * @param x `[..., D]`
 * @param weight `[D]`
 * @param bias `[D]`
 * @throws ShapeError where sizes do not agree
 */
export function layerNorm(x: tf.Tensor, weight?: tf.Tensor1D, bias?: tf.Tensor1D, { epsilon = 1e-6 }: NormOptions = {}): tf.Tensor {
  const d = x.shape.at(-1) ?? 0;
  if (x.rank < 1) throw new ShapeError('layerNorm: x', x.shape, '..., D');
  if ((weight === undefined) !== (bias === undefined)) throw new ArgumentError('layerNorm: weight and bias', [weight !== undefined, bias !== undefined], 'both or neither');
  if (weight !== undefined) axes('layerNorm: weight', weight, 'D', { D: d });
  if (bias !== undefined) axes('layerNorm: bias', bias, 'D', { D: d });
  return tf.tidy(() => {
    const row = (v: tf.Tensor1D | undefined) => (v === undefined ? undefined : (tf.reshape(v, [1, d]) as tf.Tensor2D));
    return tf.reshape(normOp({ x: tf.reshape(x, [-1, d]), gain: row(weight), shift: row(bias) }, { one: 0, epsilon }), x.shape);
  });
}

/**
 * Layer normalisation without weights, then adaLN's modulation: x̂ · (1 + scale) + shift (DiT's `modulate(norm(x), …)`).
 *
 * @param x `[N, T, D]`
 * @param shift `[N, D]`
 * @param scale `[N, D]`
 * @returns `[N, T, D]`
 * @throws ShapeError where sizes do not agree
 */
export function modulatedNorm(x: tf.Tensor3D, shift: tf.Tensor2D, scale: tf.Tensor2D, { epsilon = 1e-6 }: NormOptions = {}): tf.Tensor3D {
  const { N, D } = axes('modulatedNorm: x', x, 'N T D');
  axes('modulatedNorm: shift', shift, 'N D', { N, D });
  axes('modulatedNorm: scale', scale, 'N D', { N, D });
  return tf.tidy(() => tf.reshape(normOp({ x: tf.reshape(x, [-1, D]), gain: scale, shift }, { one: 1, epsilon }), x.shape));
}

type GroupNormInputs = { x: tf.Tensor4D; weight: tf.Tensor1D; bias: tf.Tensor1D };

const groupNormOp = defineOp<GroupNormInputs, { groups: number; epsilon: number }, tf.Tensor4D>({
  name: GROUP_NORM,
  reference: ({ x, weight, bias }, { groups, epsilon }) => {
    const [n, h, w, c] = x.shape;
    const parts = tf.reshape(x, [n, h * w, groups, c / groups]);
    const { mean, variance } = tf.moments(parts, [1, 3], true);
    const normed = tf.mul(tf.sub(parts, mean), tf.rsqrt(tf.add(variance, epsilon)));
    return tf.add(tf.mul(tf.reshape(normed, x.shape), weight), bias);
  },
  gradient: (run, dy, { x, weight }, attributes) => {
    const [dx, dWeight, dBias] = run(GROUP_NORM_GRAD, { dy, x, weight }, attributes);
    return { x: () => dx!, weight: () => dWeight!, bias: () => dBias! };
  },
});

/** Options of {@link groupNorm}. */
export interface GroupNormOptions {
  /** A divisor of C. Default 32. */
  groups?: number;
  /** Added to the variance. Default 1e-6, as in latent diffusion's autoencoders. */
  epsilon?: number;
}

/**
 * Group normalisation (Wu & He 2018): mean 0 and variance 1 over space and each group of channels, then · weight + bias.
 *
 * @param x `[N, H, W, C]`
 * @param weight `[C]`
 * @param bias `[C]`
 * @throws ShapeError, or ArgumentError where groups do not divide the channels
 */
export function groupNorm(x: tf.Tensor4D, weight: tf.Tensor1D, bias: tf.Tensor1D, { groups = 32, epsilon = 1e-6 }: GroupNormOptions = {}): tf.Tensor4D {
  const { C } = axes('groupNorm: x', x, 'N H W C');
  axes('groupNorm: weight', weight, 'C', { C });
  axes('groupNorm: bias', bias, 'C', { C });
  if (!Number.isInteger(groups) || groups < 1 || C % groups !== 0) throw new ArgumentError('groupNorm: groups', groups, `a divisor of the ${C} channels`);
  return groupNormOp({ x, weight, bias }, { groups, epsilon });
}

import { ArgumentError } from '@tinyfusion/core';
import type { BlockHook } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { unitOf } from './unit.js';

/**
 * Computes only the layers of a draw: `run` is not called for the others, whose input is handed on, so that a step costs
 * what the shallow model costs. As `hook` it chooses among blocks, as `branchHook` among their branches (attention, then MLP).
 *
 * With `masks`, the gates learn straight-through from the kept layers: the gradient of a mask is Σ (y − x) · ∂L/∂y over
 * tokens and channels, as {@link gateHook} has it where the mask is 1. Of dropped layers nothing is known, and their masks
 * have no gradient. This estimate is biased in two ways. It takes the dropped alternative for one that changes nothing,
 * where the masks of {@link gateHook} know its first-order effect. And it sees the loss's slope at the kept end only: a
 * layer that brings a squared error exactly to its minimum has slope 0 there, so that its use goes unseen, while a harmful
 * layer is always found out. Without `masks` no gradient flows to the gates here: they learn, without bias, by
 * {@link scoreFunction}. Use one of the two, not both.
 *
 * @param draw from `sampleForBatch`
 * @param masks the draw's, `[N]` each; borrowed while the hook is in use
 * @throws ArgumentError where a kept layer is not one of the draw's, and in use, where the model has another number of layers
 */
export function skippingHook(draw: { readonly kept: readonly number[]; readonly units: number }, masks?: readonly tf.Tensor1D[]): BlockHook {
  if (masks !== undefined && masks.length !== draw.units) throw new ArgumentError('skippingHook: masks', masks.length, `one for each of the draw's ${draw.units} layers`);
  const beyond = draw.kept.find((layer) => !Number.isInteger(layer) || layer < 0 || layer >= draw.units);
  if (beyond !== undefined) throw new ArgumentError('skippingHook: kept', beyond, `layers from 0 to ${draw.units - 1}`);
  const kept = new Set(draw.kept);
  return (site, x, run) => {
    const unit = unitOf('skippingHook: draw', site, draw.units);
    if (!kept.has(unit)) return x;
    return masks === undefined ? run(x) : keptResidual(x, run(x), masks[unit]!);
  };
}

/** y, as y · m + x · (1 − m) is where m is 1, with that formula's gradients. @param m `[N]`, all 1 */
function keptResidual(x: tf.Tensor3D, y: tf.Tensor3D, m: tf.Tensor1D): tf.Tensor3D {
  const op = tf.customGrad((a, _m, save) => {
    (save as tf.GradSaveFunc)([x, a as tf.Tensor]);
    const gradFunc = (dy: tf.Tensor, saved: tf.Tensor[]): tf.Tensor[] => [tf.clone(dy), tf.sum(tf.mul(tf.sub(saved[1]!, saved[0]!), dy), [1, 2])];
    return { value: tf.clone(a as tf.Tensor), gradFunc };
  });
  return op(y, m) as tf.Tensor3D;
}

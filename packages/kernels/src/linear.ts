import { ShapeError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { defineOp } from './op.js';

/** Kernel name of {@link linear}: inputs x `[rows, I]`, weight, bias?. */
export const LINEAR = 'TinyFusionLinear';
/** Kernel name of a sum over the first axis: input x `[rows, D]`. */
export const SUM_ROWS = 'TinyFusionSumRows';

type LinearInputs = { x: tf.Tensor2D; weight: tf.Tensor2D; bias: tf.Tensor1D | undefined };

const linearOp = defineOp<LinearInputs, Record<string, never>, tf.Tensor>({
  name: LINEAR,
  reference: ({ x, weight, bias }) => {
    const y = tf.matMul(x, weight, false, true);
    return bias === undefined ? y : tf.add(y, bias);
  },
  gradient: (run, dy, { x, weight }) => ({
    x: () => tf.matMul(dy, weight),
    weight: () => tf.matMul(dy, x, true, false),
    bias: () => run(SUM_ROWS, { x: dy })[0]!,
  }),
});

/**
 * y = x Wᵀ + b over the last axis, with PyTorch's weight layout (`torch.nn.functional.linear`).
 *
 * @param x `[..., I]`
 * @param weight `[O, I]`
 * @param bias `[O]`
 * @returns `[..., O]`
 * @throws ShapeError where sizes do not agree
 */
export function linear(x: tf.Tensor, weight: tf.Tensor2D, bias?: tf.Tensor1D): tf.Tensor {
  const [outFeatures, inFeatures] = weight.shape;
  if (weight.rank !== 2) throw new ShapeError('linear: weight', weight.shape, 'O, I');
  if (x.rank < 1 || x.shape.at(-1) !== inFeatures) throw new ShapeError('linear: x', x.shape, `..., I=${inFeatures}`);
  if (bias !== undefined && (bias.rank !== 1 || bias.shape[0] !== outFeatures)) throw new ShapeError('linear: bias', bias.shape, `O=${outFeatures}`);
  return tf.tidy(() => tf.reshape(linearOp({ x: tf.reshape(x, [-1, inFeatures]), weight, bias }, {}), [...x.shape.slice(0, -1), outFeatures]));
}

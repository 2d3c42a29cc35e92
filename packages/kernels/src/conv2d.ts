import { ArgumentError, ShapeError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { SUM_ROWS } from './linear.js';
import { defineOp } from './op.js';
import { axes } from './shape.js';

/** Kernel name of {@link conv2d}: inputs x, weight, bias?; attributes stride, padding (top, bottom, left, right). */
export const CONV2D = 'TinyFusionConv2d';
/** Its gradients: inputs dy, and weight or x; attributes also `shape`, that of the result. */
export const CONV2D_GRAD_INPUT = 'TinyFusionConv2dGradInput';
export const CONV2D_GRAD_WEIGHT = 'TinyFusionConv2dGradWeight';

type ConvInputs = { x: tf.Tensor4D; weight: tf.Tensor4D; bias: tf.Tensor1D | undefined };

const conv2dOp = defineOp<ConvInputs, { stride: number; padding: readonly number[] }, tf.Tensor4D>({
  name: CONV2D,
  reference: ({ x, weight, bias }, { stride, padding }) => {
    const [top, bottom, left, right] = padding as [number, number, number, number];
    const padded = padding.some((p) => p > 0) ? tf.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]]) : x;
    const y = tf.conv2d(padded, tf.transpose(weight, [2, 3, 1, 0]), stride, 'valid');
    return bias === undefined ? y : tf.add(y, bias);
  },
  gradient: (run, dy, { x, weight }, attributes) => ({
    x: () => run(CONV2D_GRAD_INPUT, { dy, weight }, { ...attributes, shape: x.shape })[0]!,
    weight: () => run(CONV2D_GRAD_WEIGHT, { dy, x }, { ...attributes, shape: weight.shape })[0]!,
    bias: () => run(SUM_ROWS, { x: tf.reshape(dy, [-1, dy.shape[3]]) })[0]!,
  }),
});

/** Options of {@link conv2d}. */
export interface Conv2dKernelOptions {
  /** Default 1. */
  stride?: number;
  /** Zeros on every side, or `[[top, bottom], [left, right]]`. Default 0. */
  padding?: number | readonly [readonly [number, number], readonly [number, number]];
}

/**
 * Convolution (cross-correlation, as `torch.nn.functional.conv2d`) of NHWC images with PyTorch's weight layout.
 *
 * @param x `[N, H, W, C]`
 * @param weight `[O, C, kh, kw]`
 * @param bias `[O]`
 * @returns `[N, H', W', O]`
 * @throws ShapeError, or ArgumentError where stride or padding are no such integers, or the kernel is larger than the padded image
 */
export function conv2d(x: tf.Tensor4D, weight: tf.Tensor4D, bias?: tf.Tensor1D, { stride = 1, padding = 0 }: Conv2dKernelOptions = {}): tf.Tensor4D {
  const { H, W, C } = axes('conv2d: x', x, 'N H W C');
  if (weight.rank !== 4 || weight.shape[1] !== C) throw new ShapeError('conv2d: weight', weight.shape, `O, C=${C}, kh, kw`);
  if (bias !== undefined) axes('conv2d: bias', bias, 'O', { O: weight.shape[0] });
  const [[top, bottom], [left, right]] = typeof padding === 'number' ? [[padding, padding], [padding, padding]] as const : padding;
  for (const side of [top, bottom, left, right]) if (!Number.isInteger(side) || side < 0) throw new ArgumentError('conv2d: padding', side, 'integers from 0');
  if (!Number.isInteger(stride) || stride < 1) throw new ArgumentError('conv2d: stride', stride, 'a positive integer');
  if (H + top + bottom < weight.shape[2] || W + left + right < weight.shape[3]) throw new ArgumentError('conv2d: kernel size', weight.shape.slice(2), `at most the padded image, ${H + top + bottom} × ${W + left + right}`);
  return conv2dOp({ x, weight, bias }, { stride, padding: [top, bottom, left, right] });
}

import { ArgumentError, ShapeError } from '@tinyfusion/core';
import type * as tf from '@tensorflow/tfjs-core';

/** @throws ShapeError where a tensor is not of the shape of the one in its place; `what` they are is said with its index */
export function checkShapes(what: string, tensors: readonly tf.Tensor[], like: readonly tf.Tensor[]): void {
  for (const [i, { shape }] of like.entries()) if (String(tensors[i]!.shape) !== String(shape)) throw new ShapeError(`${what} ${i}`, tensors[i]!.shape, shape.join(', '));
}

/** @throws ArgumentError where the value is no integer from 0 */
export function checkCount(argument: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) throw new ArgumentError(argument, value, 'an integer from 0');
}

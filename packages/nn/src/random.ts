import type { Rng } from '@tinyfusion/core';
import { philoxNormal } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** A tensor of draws from N(0, 1), made on the device where it can. */
export function randomNormal<R extends tf.Rank>(rng: Rng, shape: tf.ShapeMap[R]): tf.Tensor<R> {
  return philoxNormal(rng, shape) as tf.Tensor<R>;
}

/** A tensor of draws from U[0, 1). */
export function randomUniform<R extends tf.Rank>(rng: Rng, shape: tf.ShapeMap[R]): tf.Tensor<R> {
  return tf.tensor<R>(rng.uniform(sizeOf(shape)), shape);
}

/** An int32 tensor `[count]` of draws from [low, high). */
export function randomIntegers(rng: Rng, low: number, high: number, count: number): tf.Tensor1D {
  return tf.tensor1d(rng.integers(low, high, count), 'int32');
}

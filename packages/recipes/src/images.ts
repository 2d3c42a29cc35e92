import type { Rng } from '@tinyfusion/core';
import type { ImageDataset } from '@tinyfusion/data';
import * as tf from '@tensorflow/tfjs-core';

/**
 * Images of a data set as a tensor in [-1, 1], padded on every side with black to a square of `size`.
 * @returns `[N, size, size, C]`
 */
export function imageTensor(data: ImageDataset, indices: Int32Array, size = 32): tf.Tensor4D {
  const { height, width, channels, images } = data;
  const top = (size - height) >> 1;
  const left = (size - width) >> 1;
  const row = width * channels;
  const out = new Float32Array(indices.length * size * size * channels).fill(-1);
  for (const [n, index] of indices.entries()) {
    for (let y = 0; y < height; y++) {
      const from = (index * height + y) * row;
      const to = ((n * size + top + y) * size + left) * channels;
      for (let i = 0; i < row; i++) out[to + i] = images[from + i]! / 127.5 - 1;
    }
  }
  return tf.tensor4d(out, [indices.length, size, size, channels]);
}

/** The middle `size` × `size` of square images, undoing {@link imageTensor}'s padding. */
export function cropCentre(images: tf.Tensor4D, size: number): tf.Tensor4D {
  const [n, side, , c] = images.shape;
  const offset = (side - size) >> 1;
  return tf.slice(images, [0, offset, offset, 0], [n, size, size, c]);
}

/** Endless batches of indices, every epoch in a new order; what is left of an epoch is dropped. */
export function* shuffledIndices(data: ImageDataset, batchSize: number, rng: Rng): Generator<Int32Array, never> {
  const count = data.labels.length;
  for (;;) {
    const order = rng.permutation(count);
    for (let at = 0; at + batchSize <= count; at += batchSize) yield order.subarray(at, at + batchSize);
  }
}

import { type ImageDataset, paddedImages } from '@tinyfusion/data';
import * as tf from '@tensorflow/tfjs-core';

/** Chosen images as a tensor in [-1, 1], padded with black to a square. @returns `[N, size, size, C]` */
export function imageTensor(data: ImageDataset, indices: Int32Array, size = 32): tf.Tensor4D {
  return tf.tensor4d(paddedImages(data, indices, size), [indices.length, size, size, data.channels]);
}

/** The middle `size` × `size` of square images, undoing {@link imageTensor}'s padding. */
export function cropCentre(images: tf.Tensor4D, size: number): tf.Tensor4D {
  const [n, side, , c] = images.shape;
  const offset = (side - size) >> 1;
  return tf.slice(images, [0, offset, offset, 0], [n, size, size, c]);
}

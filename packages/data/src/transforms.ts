import { ArgumentError } from '@tinyfusion/core';
import type { ImageDataset } from './image-dataset.js';

/**
 * Chosen images as float32 in [-1, 1], centred on black squares of side `size`.
 * @returns `[indices.length, size, size, channels]`
 * @throws ArgumentError where the squares do not hold the images, or there is no such image
 */
export function paddedImages(data: ImageDataset, indices: ArrayLike<number>, size: number): Float32Array<ArrayBuffer> {
  const { height, width, channels, images } = data;
  const side = Math.max(height, width);
  if (!Number.isInteger(size) || size < side) throw new ArgumentError('paddedImages: size', size, `an integer of ${side} or more: images are ${height}×${width}, and nothing is cut off`);
  const top = (size - height) >> 1;
  const left = (size - width) >> 1;
  const row = width * channels;
  const count = Math.floor(images.length / (height * row));
  const out = new Float32Array(indices.length * size * size * channels).fill(-1);
  for (let n = 0; n < indices.length; n++) {
    const index = indices[n]!;
    if (!Number.isInteger(index) || index < 0 || index >= count) throw new ArgumentError('paddedImages: index', index, `an integer from 0 to ${count - 1}`);
    for (let y = 0; y < height; y++) {
      const from = (index * height + y) * row;
      const to = ((n * size + top + y) * size + left) * channels;
      for (let i = 0; i < row; i++) out[to + i] = images[from + i]! / 127.5 - 1;
    }
  }
  return out;
}

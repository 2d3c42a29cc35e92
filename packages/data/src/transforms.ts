import type { ImageDataset } from './image-dataset.js';

/**
 * Chosen images as float32 in [-1, 1], centred on black squares of side `size`.
 * @returns `[indices.length, size, size, channels]`
 */
export function paddedImages(data: ImageDataset, indices: ArrayLike<number>, size: number): Float32Array<ArrayBuffer> {
  const { height, width, channels, images } = data;
  const top = (size - height) >> 1;
  const left = (size - width) >> 1;
  const row = width * channels;
  const out = new Float32Array(indices.length * size * size * channels).fill(-1);
  for (let n = 0; n < indices.length; n++) {
    for (let y = 0; y < height; y++) {
      const from = (indices[n]! * height + y) * row;
      const to = ((n * size + top + y) * size + left) * channels;
      for (let i = 0; i < row; i++) out[to + i] = images[from + i]! / 127.5 - 1;
    }
  }
  return out;
}

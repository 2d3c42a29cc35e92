import { DataError } from '@tinyfusion/core';

/** `[views, H, W, C]` of PyTorch's `[views, C, H, W]`. */
export function channelsLast(values: Float32Array, [views, channels, height, width]: readonly [number, number, number, number]): Float32Array {
  const [out, plane] = [new Float32Array(values.length), height * width];
  for (let v = 0; v < views; v++) for (let c = 0; c < channels; c++) for (let i = 0; i < plane; i++) out[(v * plane + i) * channels + c] = values[(v * channels + c) * plane + i]!;
  return out;
}

/**
 * A shape of latents as it may be stored, `[C, H, W]` or `[views, C, H, W]`, in full.
 * @throws DataError where it is neither
 */
export function latentShape(where: string, shape: readonly number[]): [views: 1 | 2, channels: number, height: number, width: number] {
  const [views, channels, height, width] = shape.length === 3 ? [1, ...shape] : shape;
  if (width === undefined || shape.length > 4 || (views !== 1 && views !== 2)) throw new DataError(`${where} has shape [${shape.join(', ')}], expected latents of [channels, height, width], or two of them: plain and flipped`);
  return [views, channels!, height!, width];
}

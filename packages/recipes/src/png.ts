import { ArgumentError } from '@tinyfusion/core';
import type { ByteImage } from '@tinyfusion/data';
import type * as tf from '@tensorflow/tfjs-core';
import { encode } from 'fast-png';

/** Options of {@link gridPng}. */
export interface GridOptions {
  /** Images a row. Default 10. */
  columns?: number;
  /** Pixels for one of the image's. Default 3. */
  scale?: number;
  /** Black pixels between images. Default 1, before scaling. */
  gap?: number;
  /** Black pixels around all of them. Default 0, before scaling; torchvision's `save_image` has as many as between images, 2. */
  border?: number;
}

/**
 * Images side by side as a PNG.
 * @param images `[N, H, W, C]` in [-1, 1], C 1 or 3; read back, not freed
 */
export async function gridPng(images: tf.Tensor4D, { columns = 10, scale = 3, gap = 1, border = 0 }: GridOptions = {}): Promise<Uint8Array> {
  const [n, h, w, channels] = images.shape;
  const across = Math.min(columns, n);
  const width = (across * (w + gap) - gap + 2 * border) * scale;
  const height = (Math.ceil(n / across) * (h + gap) - gap + 2 * border) * scale;
  const pixels = new Uint8Array(width * height * channels);
  for (const [i, image] of (await bytesOf(images)).entries()) {
    const top = (border + Math.floor(i / across) * (h + gap)) * scale;
    const left = (border + (i % across) * (w + gap)) * scale;
    for (let y = 0; y < h * scale; y++) {
      for (let x = 0; x < w * scale; x++) {
        const from = (Math.floor(y / scale) * w + Math.floor(x / scale)) * channels;
        const to = ((top + y) * width + left + x) * channels;
        for (let k = 0; k < channels; k++) pixels[to + k] = image[from + k]!;
      }
    }
  }
  return encodePng({ width, height, channels, pixels });
}

/** Each of the images as bytes, `[H, W, C]`; -1 is 0 and 1 is 255. @throws ArgumentError where a value is NaN, which would be black */
export async function bytesOf(images: tf.Tensor4D): Promise<Uint8Array[]> {
  const [n, h, w, c] = images.shape;
  if (c !== 1 && c !== 3) throw new ArgumentError('images: channels', c, '1 or 3');
  const values = await images.data();
  if (values.some((v) => Number.isNaN(v))) throw new ArgumentError('images', Number.NaN, 'numbers: a model that draws none is damaged, or its weights are too large for the type that they are held in');
  const bytes = Uint8Array.from(values, (v) => Math.round((Math.min(1, Math.max(-1, v)) + 1) * 127.5));
  return Array.from({ length: n }, (_, i) => bytes.subarray(i * h * w * c, (i + 1) * h * w * c));
}

/** An image of bytes as a PNG. */
export function encodePng({ width, height, channels, pixels }: ByteImage): Uint8Array {
  return encode({ width, height, channels, data: pixels });
}

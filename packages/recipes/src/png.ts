import { ArgumentError } from '@tinyfusion/core';
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
}

/**
 * Images side by side as a PNG.
 * @param images `[N, H, W, C]` in [-1, 1], C 1 or 3; read back, not freed
 */
export async function gridPng(images: tf.Tensor4D, { columns = 10, scale = 3, gap = 1 }: GridOptions = {}): Promise<Uint8Array> {
  const [n, h, w, c] = images.shape;
  if (c !== 1 && c !== 3) throw new ArgumentError('gridPng: channels', c, '1 or 3');
  const values = await images.data();
  const rows = Math.ceil(n / columns);
  const width = (columns * (w + gap) - gap) * scale;
  const height = (rows * (h + gap) - gap) * scale;
  const data = new Uint8Array(width * height * c);
  for (let i = 0; i < n; i++) {
    const top = Math.floor(i / columns) * (h + gap) * scale;
    const left = (i % columns) * (w + gap) * scale;
    for (let y = 0; y < h * scale; y++) {
      for (let x = 0; x < w * scale; x++) {
        const from = ((i * h + Math.floor(y / scale)) * w + Math.floor(x / scale)) * c;
        const to = ((top + y) * width + left + x) * c;
        for (let k = 0; k < c; k++) data[to + k] = Math.round((Math.min(1, Math.max(-1, values[from + k]!)) + 1) * 127.5);
      }
    }
  }
  return encode({ width, height, data, channels: c });
}

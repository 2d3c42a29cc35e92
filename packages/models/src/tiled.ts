import { ArgumentError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import type { Float } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import type { AutoencoderConfig, AutoencoderKL } from './vae.js';

/** Options of {@link decodeTiled}. */
export interface DecodeTiledOptions extends LongTaskOptions {
  /** Side of a tile in latents. Default 64, as diffusers'. */
  tile?: number;
  /** Share of a tile's side that it has in common with its neighbour, in (0, 1). Default 0.25, as diffusers'. */
  overlap?: number;
}

/** What {@link decodeTiled} needs of an autoencoder. */
export type Decoder = Pick<AutoencoderKL, 'decode' | 'downsampling'> & { readonly config: Pick<AutoencoderConfig, 'scalingFactor'> };

/**
 * Decodes latents tile by tile, blended linearly where tiles overlap, so that memory does not grow with the picture.
 * Group norms see a tile and not the picture, so colours may differ a little from {@link AutoencoderKL.fromLatents}; a
 * picture of one tile is the same. Upstream: `AutoencoderKL.tiled_decode` of diffusers.
 *
 * @param z `[N, h, w, c]` scaled latents
 * @returns `[N, f·h, f·w, C]` images, clipped to [-1, 1]
 * @throws ArgumentError where tile and overlap leave no step
 */
export async function decodeTiled(vae: Decoder, z: Float<'N H W C'>, { tile = 64, overlap = 0.25, signal, onProgress }: DecodeTiledOptions = {}): Promise<tf.Tensor4D> {
  const step = Math.floor(tile * (1 - overlap));
  if (!Number.isInteger(tile) || tile < 1 || !(overlap > 0 && overlap < 1) || step < 1) throw new ArgumentError('DecodeTiledOptions: [tile, overlap]', [tile, overlap], 'a positive integer, and a share in (0, 1) that leaves a step of one latent');
  const [n, height, width, channels] = z.shape;
  // whole latents on both sides of the cut, where diffusers rounds pixels and latents apart
  const limit = step * vae.downsampling;
  const blend = (tile - step) * vae.downsampling;
  const starts = (size: number): number[] => Array.from({ length: Math.ceil(size / step) }, (_, i) => i * step);
  const [tops, lefts] = [starts(height), starts(width)];
  let above: tf.Tensor4D[] = [];
  const bands: tf.Tensor4D[] = [];
  let done = 0;
  try {
    for (const top of tops) {
      const row: tf.Tensor4D[] = [];
      try {
        for (const [j, left] of lefts.entries()) {
          throwIfCancelled(signal, 'decode');
          row.push(
            tf.tidy(() => {
              const size = [n, Math.min(tile, height - top), Math.min(tile, width - left), channels] as [number, number, number, number];
              let pixels: tf.Tensor4D = vae.decode(tf.div(tf.slice(z, [0, top, left, 0], size), vae.config.scalingFactor));
              if (above.length > 0) pixels = blended(above[j]!, pixels, 1, blend);
              return j > 0 ? blended(row[j - 1]!, pixels, 2, blend) : pixels;
            }),
          );
          onProgress?.({ task: 'decode', step: ++done, total: tops.length * lefts.length, unit: 'tile' });
          await new Promise((resolve) => setTimeout(resolve, 0));
        }
        bands.push(tf.tidy(() => tf.concat(row.map((pixels) => tf.slice(pixels, [0, 0, 0, 0], [-1, Math.min(limit, pixels.shape[1]), Math.min(limit, pixels.shape[2]), -1])), 2)));
      } finally {
        tf.dispose(above);
        above = row;
      }
    }
    return tf.tidy(() => tf.clipByValue(tf.slice(tf.concat(bands, 1), [0, 0, 0, 0], [n, height * vae.downsampling, width * vae.downsampling, -1]), -1, 1));
  } finally {
    tf.dispose([above, bands]);
  }
}

/** `b` with its first pixels along an axis fading in from the last ones of `a`. Inside a tidy. */
function blended(a: tf.Tensor4D, b: tf.Tensor4D, axis: 1 | 2, most: number): tf.Tensor4D {
  const extent = Math.min(a.shape[axis], b.shape[axis], most);
  if (extent === 0) return b;
  const from = (x: tf.Tensor4D, start: number, length: number): tf.Tensor4D => {
    const begin = [0, 0, 0, 0];
    const size = [-1, -1, -1, -1];
    [begin[axis], size[axis]] = [start, length];
    return tf.slice(x, begin as [number, number, number, number], size as [number, number, number, number]);
  };
  const share = tf.tensor(Float32Array.from({ length: extent }, (_, i) => i / extent), axis === 1 ? [1, extent, 1, 1] : [1, 1, extent, 1]);
  const mixed = tf.add(tf.mul(from(a, a.shape[axis] - extent, extent), tf.sub(1, share)), tf.mul(from(b, 0, extent), share)) as tf.Tensor4D;
  return b.shape[axis] === extent ? mixed : tf.concat([mixed, from(b, extent, b.shape[axis] - extent)], axis);
}

import { ArgumentError } from '@tinyfusion/core';

/** An image of 8 bits a channel, rows of pixels of channels. */
export interface ByteImage {
  width: number;
  height: number;
  channels: number;
  /** `[height · width · channels]` */
  pixels: Uint8Array;
}

/** A resampling filter: its half width, and its value. */
interface Filter {
  support: number;
  weight: (x: number) => number;
}

const filters = {
  box: { support: 0.5, weight: (x: number) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bicubic: {
    support: 2,
    // Keys' cubic with a = −0.5
    weight: (x: number) => {
      const d = Math.abs(x);
      return d < 1 ? (1.5 * d - 2.5) * d * d + 1 : d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
    },
  },
} satisfies Record<string, Filter>;

/** Names of the filters: the area's mean, and Keys' cubic. */
export type ResampleFilter = keyof typeof filters;

/**
 * Resizes as Pillow does (`Image.resize`), to the bit: weights in fixed point with 22 fractional bits, columns first,
 * rounded to 8 bits in between. The filter widens where the image shrinks, which is what metrics and models that were
 * made with Pillow were made with; a canvas or a plain bilinear resize gives other images.
 *
 * @throws ArgumentError where the size is not of positive integers
 */
export function resizeImage(image: ByteImage, width: number, height: number, filter: ResampleFilter): ByteImage {
  for (const [name, size] of [['width', width], ['height', height]] as const) if (!Number.isInteger(size) || size < 1) throw new ArgumentError(`resizeImage: ${name}`, size, 'a positive integer');
  const wide = image.width === width ? image : resampleColumns(image, width, filters[filter]);
  return wide.height === height ? wide : transpose(resampleColumns(transpose(wide), height, filters[filter]));
}

const FRACTION = 2 ** 22;

function resampleColumns({ width: from, height, channels, pixels }: ByteImage, width: number, filter: Filter): ByteImage {
  const taps = Array.from({ length: width }, (_, x) => tapsOf(x, from, width, filter));
  const out = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    for (const [x, { start, weights }] of taps.entries()) {
      for (let c = 0; c < channels; c++) {
        let sum = FRACTION / 2;
        for (let i = 0; i < weights.length; i++) sum += pixels[(y * from + start + i) * channels + c]! * weights[i]!;
        out[(y * width + x) * channels + c] = Math.min(255, Math.max(0, Math.floor(sum / FRACTION)));
      }
    }
  }
  return { width, height, channels, pixels: out };
}

/** Which input pixels make an output pixel, and their weights in fixed point. */
function tapsOf(x: number, from: number, to: number, { support, weight }: Filter): { start: number; weights: number[] } {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  const centre = (x + 0.5) * scale;
  const start = Math.max(0, Math.trunc(centre - reach + 0.5));
  const end = Math.min(from, Math.trunc(centre + reach + 0.5));
  const weights = Array.from({ length: end - start }, (_, i) => weight((i + start - centre + 0.5) * (1 / stretch)));
  const total = weights.reduce((a, b) => a + b, 0);
  return { start, weights: weights.map((w) => (total === 0 ? 0 : roundAway((w / total) * FRACTION))) };
}

/** Half away from zero, as C's cast after adding ±0.5. */
const roundAway = (x: number): number => Math.trunc(x < 0 ? x - 0.5 : x + 0.5);

function transpose({ width, height, channels, pixels }: ByteImage): ByteImage {
  const out = new Uint8Array(pixels.length);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) for (let c = 0; c < channels; c++) out[(x * height + y) * channels + c] = pixels[(y * width + x) * channels + c]!;
  return { width: height, height: width, channels, pixels: out };
}

/**
 * ADM's centre crop: halves the image by boxes while its short side is at least twice `size`, takes the short side to
 * `size` by a bicubic filter, and cuts out the middle. Upstream: `center_crop_arr` of guided-diffusion and DiT.
 */
export function centreCrop(image: ByteImage, size: number): ByteImage {
  let scaled = image;
  while (Math.min(scaled.width, scaled.height) >= 2 * size) scaled = resizeImage(scaled, Math.floor(scaled.width / 2), Math.floor(scaled.height / 2), 'box');
  const scale = size / Math.min(scaled.width, scaled.height);
  scaled = resizeImage(scaled, roundHalfEven(scaled.width * scale), roundHalfEven(scaled.height * scale), 'bicubic');
  return cropImage(scaled, Math.floor((scaled.width - size) / 2), Math.floor((scaled.height - size) / 2), size, size);
}

/** A rectangle of an image. @throws ArgumentError where it reaches outside */
export function cropImage({ width: from, height: rows, channels, pixels }: ByteImage, left: number, top: number, width: number, height: number): ByteImage {
  if (!(left >= 0 && top >= 0 && left + width <= from && top + height <= rows)) throw new ArgumentError('cropImage: rectangle', [left, top, width, height], `inside the ${from} × ${rows} image`);
  const out = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) out.set(pixels.subarray(((top + y) * from + left) * channels, ((top + y) * from + left + width) * channels), y * width * channels);
  return { width, height, channels, pixels: out };
}

/** Python's `round`. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

/** Values in [-1, 1] as `ToTensor` and `Normalize(0.5, 0.5)` make them, rows of pixels of channels. */
export function normalised({ pixels }: ByteImage): Float32Array<ArrayBuffer> {
  return Float32Array.from(pixels, (p) => (Math.fround(p / 255) - 0.5) / 0.5);
}

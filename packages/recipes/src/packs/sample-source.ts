import { ArgumentError } from '@tinyfusion/core';
import type { PackDescription } from '@tinyfusion/data/node';

/** A sample of a source. */
export interface SourceSample {
  /** Counted from 0. */
  place: number;
  label: number;
  /** Bytes of an image `[H, W, C]`, or floats of latents `[views, H, W, C]`. */
  values: Uint8Array | Float32Array;
}

/** What packs are made of: images with bytes, or latents that were encoded elsewhere. */
export interface SampleSource extends Pick<PackDescription, 'kind' | 'shape' | 'views' | 'classNames' | 'source'>, AsyncDisposable {
  /** Places there are; broken samples may be left out of them. */
  count: number;
  /** @param from the first place */
  samples(from: number, signal?: AbortSignal): AsyncIterable<SourceSample>;
}

/** Options of {@link openSampleSource}. */
export interface SampleSourceOptions {
  /** Side of the centre crop of a folder of images. Default 256. */
  size?: number | undefined;
  /** Number of classes, where the source does not say. Default: one more than the largest label. */
  classes?: number | undefined;
  /** Takes broken images instead of an error. */
  onBroken?: ((path: string, reason: string) => void) | undefined;
}

/** Names of classes where there are only numbers. */
export function numbered(labels: Iterable<number>, classes: number | undefined): string[] {
  let most = -1;
  for (const label of labels) most = Math.max(most, label);
  const count = classes ?? most + 1;
  if (most >= count) throw new ArgumentError('classes', count, `more than ${most}, the largest label`);
  return Array.from({ length: count }, (_, i) => String(i));
}

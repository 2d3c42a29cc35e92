import { DataError } from '@tinyfusion/core';

/** Images with labels, in memory. */
export interface ImageDataset {
  /** `[N, height, width, channels]`, C order. */
  readonly images: Uint8Array;
  /** `[N]`, each in [0, numClasses). */
  readonly labels: Int32Array;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly numClasses: number;
  /** One name a class. */
  readonly classNames: readonly string[];
}

/**
 * Checks that sizes agree and labels are in range.
 * @param source where the data came from, for messages
 * @throws DataError
 */
export function checkDataset(dataset: ImageDataset, source: string): ImageDataset {
  const { images, labels, height, width, channels, numClasses } = dataset;
  const expected = labels.length * height * width * channels;
  if (images.length !== expected) throw new DataError(`${source}: ${labels.length} labels for images of ${height}×${width}×${channels} need ${expected} bytes, got ${images.length}; images and labels are not of the same set`);
  const wrong = labels.findIndex((label) => label < 0 || label >= numClasses);
  if (wrong >= 0) throw new DataError(`${source}: label ${labels[wrong]} of image ${wrong} is out of range, expected 0 to ${numClasses - 1}`);
  return dataset;
}

/** The first `count` images, or all where there are fewer. */
export function firstImages(dataset: ImageDataset, count: number): ImageDataset {
  const n = Math.min(count, dataset.labels.length);
  return { ...dataset, images: dataset.images.subarray(0, n * dataset.height * dataset.width * dataset.channels), labels: dataset.labels.subarray(0, n) };
}

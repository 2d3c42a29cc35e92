import type { ImageDataset } from '@tinyfusion/data';
import { createHash } from 'node:crypto';

/** SHA-256 of a data set's labels, sizes and pixels: tells whether a run goes on with the data it began with. */
export function dataHash({ images, labels, height, width, channels }: ImageDataset): string {
  const pixels = images.subarray(0, labels.length * height * width * channels);
  return createHash('sha256').update(`${labels.length} ${height} ${width} ${channels} `).update(new Uint8Array(labels.buffer, labels.byteOffset, labels.byteLength)).update(pixels).digest('hex');
}

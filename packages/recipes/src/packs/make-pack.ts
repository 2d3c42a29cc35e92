import { type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { type PackItem, PackWriter } from '@tinyfusion/data/node';
import { encodeFloat32 } from '@tinyfusion/weights';
import { breathe } from '../loop.js';
import type { ImageEncoder } from './image-encoder.js';
import type { SampleSource, SourceSample } from './sample-source.js';

/** Options of {@link makePack}. */
export interface MakePackOptions extends LongTaskOptions {
  /** Makes latents of images. Default: they stay images. */
  encoder?: ImageEncoder | undefined;
  /** Whether images are kept plain and flipped. Default `true`, as the references do. Latents have the views that they have. */
  flip?: boolean;
  /** Samples at a time. Default 64; with an encoder 4. */
  batchSize?: number | undefined;
  /** Bytes of a shard, more or less. Default 64 MB. */
  shardBytes?: number;
  /** What else two packs must agree in to be the same, such as a seed. */
  identity?: Readonly<Record<string, string | number>>;
}

/**
 * Makes a pack of a source, or goes on with one.
 * @returns samples that were written, and those that were there
 * @throws DataError where the folder holds another pack
 */
export async function makePack(source: SampleSource, folder: string, { encoder, flip = true, batchSize = encoder === undefined ? 64 : 4, shardBytes = 64 * 2 ** 20, identity = {}, signal, onProgress }: MakePackOptions = {}): Promise<{ written: number; present: number }> {
  const views = source.kind === 'latents' ? source.views : flip ? 2 : 1;
  const shape = encoder === undefined ? source.shape : encoder.latentShape(source.shape);
  const kind = encoder === undefined ? source.kind : 'latents';
  const bytes = views * shape[0] * shape[1] * shape[2] * (kind === 'images' ? 1 : 2);
  await using writer = await PackWriter.open(folder, { kind, shape, views, classNames: source.classNames, perShard: Math.max(1, Math.round(shardBytes / bytes)), source: { ...source.source, ...(encoder === undefined ? {} : { autoencoder: encoder.hash }), ...identity } });
  const present = writer.count;
  if (writer.complete) return { written: 0, present };
  let waiting: SourceSample[] = [];
  const flush = async (): Promise<void> => {
    throwIfCancelled(signal, 'pack');
    const items = encoder === undefined ? waiting.map((sample) => itemOf(sample, source.shape, views)) : await encoded(encoder, waiting, source.shape, views);
    await writer.add(items);
    onProgress?.({ task: 'pack', step: writer.next, total: source.count, unit: 'sample' });
    waiting = [];
    await breathe();
  };
  for await (const sample of source.samples(writer.next, signal)) {
    waiting.push(sample);
    if (waiting.length >= batchSize) await flush();
  }
  if (waiting.length > 0) await flush();
  await writer.finish();
  return { written: writer.count - present, present };
}

function itemOf({ place, label, values }: SourceSample, shape: readonly [number, number, number], views: 1 | 2): PackItem {
  if (values instanceof Float32Array) return { place, label, bytes: encodeFloat32(values, 'F16', `sample ${place}`) };
  if (views === 1) return { place, label, bytes: values };
  const both = new Uint8Array(2 * values.length);
  both.set(values);
  both.set(flipped(values, shape), values.length);
  return { place, label, bytes: both };
}

async function encoded(encoder: ImageEncoder, samples: readonly SourceSample[], shape: readonly [number, number, number], views: 1 | 2): Promise<PackItem[]> {
  const values = await encoder.encode(samples.map((sample) => sample.values as Uint8Array), shape, samples.map(({ place }) => place), views);
  const size = values.length / samples.length;
  return samples.map(({ place, label }, i) => ({ place, label, bytes: encodeFloat32(values.subarray(i * size, (i + 1) * size), 'F16', `sample ${place}`) }));
}

/** `[H, W, C]` from right to left. */
function flipped(pixels: Uint8Array, [height, width, channels]: readonly [number, number, number]): Uint8Array {
  const out = new Uint8Array(pixels.length);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) for (let c = 0; c < channels; c++) out[(y * width + x) * channels + c] = pixels[(y * width + width - 1 - x) * channels + c]!;
  return out;
}

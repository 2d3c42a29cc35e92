import { DataError, throwIfCancelled } from '@tinyfusion/core';
import { type TensorRecord, bytesPerValue, decodeFloat32, tensorParts, toFloat32 } from '@tinyfusion/weights';
import { openCheckpoint } from '@tinyfusion/weights/node';
import { channelsLast, latentShape } from './channels-last.js';
import { type SampleSource, type SampleSourceOptions, numbered } from './sample-source.js';

/** Names under which archives have their images or latents, and their labels. */
const [NAMES, LABELS] = [['arr_0', 'images', 'latents', 'features', 'x', 'x_train'], ['arr_1', 'labels', 'y', 'y_train']] as const;

/** An `.npz` of images, bytes `[N, H, W, C]` or `[N, H, W]`, or of latents, floats `[N, C, H, W]` or `[N, views, C, H, W]`, with labels. */
export async function npzSource(path: string, { classes }: SampleSourceOptions): Promise<SampleSource> {
  const archive = await openCheckpoint(path);
  try {
    const [name, labelName] = [NAMES.find((n) => archive.tensors.has(n)), LABELS.find((n) => archive.tensors.has(n))];
    if (name === undefined || labelName === undefined) throw new DataError(`${path} has ${[...archive.tensors.keys()].slice(0, 8).join(', ') || 'nothing'}; expected images or latents as ${NAMES.join(', ')}, and labels as ${LABELS.join(', ')}`);
    const record = archive.tensors.get(name)!;
    const labels = await toFloat32(archive.tensors.get(labelName)!);
    const [count, ...each] = record.shape;
    if (labels.length !== count) throw new DataError(`${path}: ${name} has ${count} samples, ${labelName} ${labels.length} labels`);
    const wrong = labels.findIndex((label) => !Number.isInteger(label) || label < 0);
    if (wrong >= 0) throw new DataError(`${path}: label ${wrong} is ${labels[wrong]}, expected an integer from 0`);
    const common = { classNames: numbered(labels, classes), count, source: { from: '.npz', array: name, samples: count }, [Symbol.asyncDispose]: () => archive[Symbol.asyncDispose]() };
    if (record.dtype === 'U8') {
      const [height, width, channels = 1] = each;
      if (width === undefined || each.length > 3 || (channels !== 1 && channels !== 3)) throw new DataError(`${path}: ${name} has shape [${record.shape.join(', ')}], expected images of [N, height, width, 1 or 3]`);
      return { ...common, kind: 'images', shape: [height!, width, channels], views: 1, samples: (from, signal) => samplesOf(record, labels, from, signal, (bytes) => bytes) };
    }
    if (record.dtype !== 'F32' && record.dtype !== 'F16' && record.dtype !== 'F64') throw new DataError(`${path}: ${name} is of type ${record.dtype}, expected bytes of images or floats of latents`);
    const shape = latentShape(`a sample of ${name} in ${path}`, each);
    const [views, channels, height, width] = shape;
    return { ...common, kind: 'latents', shape: [height, width, channels], views, samples: (from, signal) => samplesOf(record, labels, from, signal, (bytes) => channelsLast(decodeFloat32(bytes, record.dtype), shape)) };
  } catch (error) {
    await archive[Symbol.asyncDispose]();
    throw error;
  }
}

async function* samplesOf<V extends Uint8Array | Float32Array>(record: TensorRecord, labels: Float32Array, from: number, signal: AbortSignal | undefined, decode: (bytes: Uint8Array) => V): AsyncGenerator<{ place: number; label: number; values: V }, void, void> {
  const size = record.shape.slice(1).reduce((a, b) => a * b, bytesPerValue[record.dtype]);
  let [place, filled, sample] = [0, 0, new Uint8Array(size)];
  for await (const part of tensorParts(record)) {
    throwIfCancelled(signal, 'pack');
    for (let at = 0; at < part.length; ) {
      const taken = Math.min(size - filled, part.length - at);
      sample.set(part.subarray(at, at + taken), filled);
      [filled, at] = [filled + taken, at + taken];
      if (filled < size) continue;
      if (place >= from) {
        yield { place, label: labels[place]!, values: decode(sample) };
        sample = new Uint8Array(size);
      }
      [place, filled] = [place + 1, 0];
    }
  }
}

import { createRng, type Rng } from '@tinyfusion/core';
import type { Module } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import protobuf from 'protobufjs/light.js';

/** Fills every trainable parameter with noise, so that nothing that a graph leaves out goes unseen; gains are near 1. */
export function fill<M extends Module>(model: M, seed = 1, deviation = 0.15): M {
  const rng = createRng(seed);
  for (const [name, parameter] of model.namedParameters()) {
    if (parameter.trainable) tf.tidy(() => parameter.assign(tf.tensor(rng.normal(parameter.size).map((v) => deviation * v + (/norm.*weight|ln.*weight/.test(name) ? 1 : 0)), parameter.shape)));
  }
  return model;
}

export const noise = (rng: Rng, shape: number[]): tf.Tensor => tf.tensor(rng.normal(shape.reduce((a, b) => a * b, 1)), shape);

/** Runs a file on tensors of ours. */
export async function runOnnx(file: Uint8Array | string, inputs: Record<string, tf.Tensor>): Promise<Record<string, { dims: readonly number[]; values: Float32Array }>> {
  const session = await (typeof file === 'string' ? InferenceSession.create(file) : InferenceSession.create(file));
  const feeds: Record<string, Tensor> = {};
  for (const [name, input] of Object.entries(inputs)) feeds[name] = new Tensor(input.dtype === 'int32' ? 'int32' : 'float32', (await input.data()) as Float32Array, input.shape);
  const outputs = await session.run(feeds);
  await session.release();
  return Object.fromEntries(Object.entries(outputs).map(([name, output]) => [name, { dims: output.dims, values: output.data as Float32Array }]));
}

/** Largest difference, and the same over the largest magnitude of what is expected. */
export async function difference(actual: { dims: readonly number[]; values: Float32Array } | undefined, expected: tf.Tensor): Promise<{ absolute: number; relative: number }> {
  if (String(actual?.dims) !== String(expected.shape)) throw new Error(`[${actual?.dims}] instead of [${expected.shape}]`);
  const values = await expected.data();
  let [absolute, largest] = [0, 0];
  for (const [i, v] of values.entries()) {
    const off = Math.abs(actual!.values[i]! - v);
    // NaN counts
    if (!(off <= absolute)) absolute = off;
    largest = Math.max(largest, Math.abs(v));
  }
  return { absolute, relative: absolute / largest };
}

/** What of a file a runtime does not tell. */
export interface FileContents {
  irVersion: number;
  opsetImport: { domain: string; version: number }[];
  metadataProps: { key: string; value: string }[];
  graph: { initializer: { name: string; dims: number[]; rawData: Uint8Array }[] };
}

const repeated = (type: string, id: number) => ({ rule: 'repeated', type, id });
const schema = protobuf.Root.fromJSON({
  nested: {
    File: { fields: { irVersion: { type: 'int32', id: 1 }, graph: { type: 'Graph', id: 7 }, opsetImport: repeated('Opset', 8), metadataProps: repeated('Entry', 14) } },
    Graph: { fields: { initializer: repeated('Tensor', 5) } },
    Tensor: { fields: { dims: repeated('int32', 1), name: { type: 'string', id: 8 }, rawData: { type: 'bytes', id: 9 } } },
    Opset: { fields: { domain: { type: 'string', id: 1 }, version: { type: 'int32', id: 2 } } },
    Entry: { fields: { key: { type: 'string', id: 1 }, value: { type: 'string', id: 2 } } },
  },
});

/** Reads a file as protobuf, without a runtime. */
export const contentsOf = (file: Uint8Array): FileContents => schema.lookupType('File').decode(file) as unknown as FileContents;

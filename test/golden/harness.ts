// Reads golden cases. It parses safetensors by itself, so that a fault in our reader cannot hide one in our maths.
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { StateDict, TensorRecord } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { expect } from 'vitest';

/** The folder of cases: `TINYFUSION_GOLDEN`, or the fixtures. */
export const goldenFolder = process.env['TINYFUSION_GOLDEN'] ?? join(dirname(fileURLToPath(import.meta.url)), '../../fixtures/golden');

/** One tensor of a case, in PyTorch's layout. */
export interface GoldenTensor {
  shape: number[];
  values: Float32Array | Int32Array | Uint8Array;
}

/** One file. */
export interface GoldenCase {
  /** File name without `.safetensors`. */
  name: string;
  /** JSON of the metadata's `config`. */
  config: Record<string, unknown>;
  metadata: Record<string, string>;
  tensors: Map<string, GoldenTensor>;
  /** The tensor of that name; throws where there is none. */
  get(name: string): GoldenTensor;
  /** A state dict of the tensors whose names start with `prefix`, without it. Default `w.`. */
  state(prefix?: string): StateDict;
}

/** Names of all cases in the folder. */
export function goldenNames(): string[] {
  return readdirSync(goldenFolder)
    .filter((f) => f.endsWith('.safetensors'))
    .map((f) => f.slice(0, -'.safetensors'.length))
    .toSorted();
}

/** Every case whose file name starts with `prefix`. */
export function goldenCases(prefix: string): GoldenCase[] {
  return goldenNames()
    .filter((name) => name.startsWith(prefix))
    .map(readCase);
}

function readCase(name: string): GoldenCase {
  const file = readFileSync(join(goldenFolder, `${name}.safetensors`));
  const headerSize = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerSize)) as Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  const metadata = header['__metadata__'] as unknown as Record<string, string>;
  const tensors = new Map<string, GoldenTensor>();
  for (const [key, entry] of Object.entries(header)) {
    if (key === '__metadata__') continue;
    const { dtype, shape, data_offsets: [from, to] } = entry;
    const bytes = new Uint8Array(file.subarray(8 + headerSize + from, 8 + headerSize + to)).buffer; // a copy, so aligned
    tensors.set(key, { shape, values: dtype === 'F32' ? new Float32Array(bytes) : dtype === 'I32' ? new Int32Array(bytes) : new Uint8Array(bytes) });
  }
  const get = (key: string): GoldenTensor => {
    const tensor = tensors.get(key);
    if (tensor === undefined) throw new Error(`${name} has no tensor ${key}`);
    return tensor;
  };
  const state = (prefix = 'w.'): StateDict => {
    const records = new Map<string, TensorRecord>();
    for (const [key, { shape, values }] of tensors) {
      if (!key.startsWith(prefix)) continue;
      const bytes = new Uint8Array(Float32Array.from(values).buffer);
      records.set(key.slice(prefix.length), { dtype: 'F32', shape, read: async () => bytes } as unknown as TensorRecord);
    }
    return { tensors: records, metadata: new Map() } as unknown as StateDict;
  };
  return { name, config: JSON.parse(metadata['config'] ?? '{}') as Record<string, unknown>, metadata, tensors, get, state };
}

/** A float32 tensor in the stored layout; int32 where stored so. */
export function tensorOf({ shape, values }: GoldenTensor): tf.Tensor {
  return values instanceof Int32Array ? tf.tensor(values, shape, 'int32') : tf.tensor(Float32Array.from(values), shape);
}

/** NCHW as stored → NHWC as ours. */
export function imagesOf(stored: GoldenTensor): tf.Tensor4D {
  return tf.tidy(() => tf.transpose(tensorOf(stored) as tf.Tensor4D, [0, 2, 3, 1]));
}

/** NHWC as ours → NCHW as stored. */
export function toStored(images: tf.Tensor4D): tf.Tensor4D {
  return tf.tidy(() => tf.transpose(images, [0, 3, 1, 2]));
}

/** How far a value may be from its reference. */
export interface Tolerance {
  /** Times the largest |reference| of the tensor. Default 0. */
  ofMax?: number;
  /** Times each |reference|. Default 0. */
  relative?: number;
  /** Default 0. */
  absolute?: number;
}

/** Compares element by element; the message names the worst element. `pnpm golden` prints each error beside its tolerance. */
export async function expectClose(label: string, got: tf.Tensor | ArrayLike<number>, reference: GoldenTensor, { ofMax = 0, relative = 0, absolute = 0 }: Tolerance): Promise<void> {
  const values = got instanceof tf.Tensor ? await got.data() : got;
  if (got instanceof tf.Tensor) expect(got.size, `${label}: size`).toBe(reference.values.length);
  let largest = 0;
  for (const value of reference.values) largest = Math.max(largest, Math.abs(value));
  let worst = { ratio: -1, index: -1, error: 0, allowed: 0 };
  for (let i = 0; i < reference.values.length; i++) {
    const expected = reference.values[i]!;
    const error = Math.abs(values[i]! - expected);
    const allowed = absolute + relative * Math.abs(expected) + ofMax * largest;
    const ratio = Number.isNaN(error) ? Infinity : error === 0 ? 0 : error / allowed;
    if (ratio > worst.ratio) worst = { ratio, index: i, error, allowed };
  }
  if (process.env['GOLDEN_VERBOSE'] === '1') console.log(`${label}: error ${worst.error.toExponential(2)}, tolerance ${worst.allowed.toExponential(2)}`);
  const { index, ratio, error, allowed } = worst;
  expect(ratio, `${label}[${index}] is ${values[index]}, reference ${reference.values[index]}: error ${error} exceeds ${allowed}`).toBeLessThanOrEqual(1);
}

/** Starts the backend that `TINYFUSION_BACKEND` names (default wasm). Call it in `beforeAll`. */
export async function useGoldenBackend(): Promise<void> {
  const { useBackend } = await import('@tinyfusion/kernels');
  const prefer = (process.env['TINYFUSION_BACKEND'] ?? 'wasm') as 'wasm' | 'webgpu' | 'cpu';
  const { name } = await useBackend({ prefer });
  expect(name).toBe(prefer);
}

/** The reference's model settings as our `DiTConfig`. */
export function modelConfig(settings: unknown) {
  const s = settings as Record<string, number | boolean>;
  return {
    inputSize: s['input_size'] as number,
    patchSize: s['patch_size'] as number,
    inChannels: s['in_channels'] as number,
    hiddenSize: s['hidden_size'] as number,
    depth: s['depth'] as number,
    numHeads: s['num_heads'] as number,
    mlpRatio: s['mlp_ratio'] as number,
    classDropoutProb: s['class_dropout_prob'] as number,
    numClasses: s['num_classes'] as number,
    learnSigma: s['learn_sigma'] as boolean,
  };
}

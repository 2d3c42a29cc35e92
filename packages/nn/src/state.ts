import { CheckpointError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { type StateDict, toFloat32 } from '@tinyfusion/weights';
import { unpackWeight } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { Linear } from './layers.js';
import type { Module } from './module.js';
import { packWeight } from './pack.js';

/** What a state dict and a module do not have in common. */
export interface StateDifference {
  /** Names the module has and the file has not. */
  missing: string[];
  /** Names the file has and the module has not. */
  unexpected: string[];
  /** Names of both whose shapes differ. */
  mismatched: { name: string; expected: readonly number[]; got: readonly number[] }[];
}

/** A parameter or buffer as checkpoints know it: in float32, however the module holds it. */
interface Stored {
  shape: number[];
  /** Takes the values to the device. */
  assign(values: Float32Array): void;
  /** Reads the values back. */
  read(): Promise<Float32Array>;
}

/** Every parameter and buffer by name. */
function storedParameters(module: Module): Map<string, Stored> {
  const packed = new Map([...module.namedModules()].flatMap(([, layer]) => (layer instanceof Linear && layer.packing !== undefined ? [[layer.weight, layer] as const] : [])));
  const scales = new Set([...packed.values()].map((layer) => layer.weight_scale));
  const stored = new Map<string, Stored>();
  for (const [name, variable] of module.namedParameters()) {
    const layer = packed.get(variable);
    if (layer !== undefined) stored.set(name, storedPacked(name, layer));
    else if (!scales.has(variable)) stored.set(name, { shape: variable.shape, assign: (values) => assign(variable, values), read: async () => Float32Array.from(await variable.data()) });
  }
  return stored;
}

function storedPacked(name: string, layer: Linear): Stored {
  return {
    shape: [layer.outFeatures, layer.inFeatures],
    assign: (values) => {
      const { words, scale } = packWeight(values, layer.inFeatures, layer.packing!, name);
      assign(layer.weight, words);
      if (scale !== undefined) assign(layer.weight_scale!, scale);
    },
    read: async () => {
      const weight = unpackWeight(layer.packed!);
      const values = (await weight.data()) as Float32Array;
      weight.dispose();
      return values;
    },
  };
}

/** Replaces a variable's value, on the device at once: tfjs would keep a WebGPU tensor in memory here until it is used. */
function assign(variable: tf.Variable, values: Float32Array | Int32Array): void {
  tf.tidy(() => variable.assign(tf.tensor(values, variable.shape, variable.dtype)));
  (tf.backend() as { uploadToGPU?: (id: object) => void }).uploadToGPU?.(variable.dataId);
}

/** Compares names and shapes without reading a value. */
export function compareState(module: Module, state: StateDict): StateDifference {
  const own = storedParameters(module);
  const difference: StateDifference = { missing: [], unexpected: [], mismatched: [] };
  for (const [name, { shape }] of own) {
    const record = state.tensors.get(name);
    if (record === undefined) difference.missing.push(name);
    else if (String(record.shape) !== String(shape)) difference.mismatched.push({ name, expected: shape, got: record.shape });
  }
  for (const name of state.tensors.keys()) if (!own.has(name)) difference.unexpected.push(name);
  return difference;
}

/** Options of {@link loadState}. */
export interface LoadStateOptions extends LongTaskOptions {
  /** Whether every name must be on both sides. Shapes must always agree. Default `true`. */
  strict?: boolean;
}

/**
 * Copies a state dict into a module's parameters, tensor by tensor, as float32 or as the module holds them. Nothing is
 * written before names and shapes have been checked.
 *
 * @returns the difference, which is empty when `strict`
 * @throws CheckpointError that lists what is missing, unexpected or wrongly shaped; CancelledError, which leaves the rest as it was
 */
export async function loadState(module: Module, state: StateDict, { strict = true, signal, onProgress }: LoadStateOptions = {}): Promise<StateDifference> {
  const difference = compareState(module, state);
  const { missing, unexpected, mismatched } = difference;
  if (mismatched.length > 0 || (strict && missing.length + unexpected.length > 0)) {
    const parts = [
      list('missing', missing),
      list('unexpected', unexpected),
      list('wrong shape', mismatched.map(({ name, expected, got }) => `${name} is [${got.join(', ')}], expected [${expected.join(', ')}]`)),
    ].filter((p) => p !== '');
    throw new CheckpointError(`the checkpoint does not fit ${module.constructor.name}: ${parts.join('; ')}. Check that it is of this model and configuration.`);
  }
  const parameters = storedParameters(module);
  let step = 0;
  for (const [name, parameter] of parameters) {
    throwIfCancelled(signal, 'load weights');
    const record = state.tensors.get(name);
    if (record !== undefined) parameter.assign(await toFloat32(record));
    onProgress?.({ task: 'load weights', step: ++step, total: parameters.size, unit: 'tensor' });
  }
  return difference;
}

/** The values of every parameter and buffer by name, read back from the device; packed weights expanded. @throws CancelledError */
export async function readState(module: Module, { signal, onProgress }: LongTaskOptions = {}): Promise<Map<string, { shape: number[]; values: Float32Array }>> {
  const parameters = storedParameters(module);
  const state = new Map<string, { shape: number[]; values: Float32Array }>();
  for (const [name, { shape, read }] of parameters) {
    throwIfCancelled(signal, 'read weights');
    state.set(name, { shape, values: await read() });
    onProgress?.({ task: 'read weights', step: state.size, total: parameters.size, unit: 'tensor' });
  }
  return state;
}

function list(title: string, names: readonly string[], most = 8): string {
  if (names.length === 0) return '';
  const shown = names.slice(0, most).join(', ');
  return `${title} (${names.length}): ${shown}${names.length > most ? `, and ${names.length - most} more` : ''}`;
}

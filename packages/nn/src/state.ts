import { CheckpointError } from '@tinyfusion/core';
import { type StateDict, toFloat32 } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import type { Module } from './module.js';

/** What a state dict and a module do not have in common. */
export interface StateDifference {
  /** Names the module has and the file has not. */
  missing: string[];
  /** Names the file has and the module has not. */
  unexpected: string[];
  /** Names of both whose shapes differ. */
  mismatched: { name: string; expected: readonly number[]; got: readonly number[] }[];
}

/** Compares names and shapes without reading a value. */
export function compareState(module: Module, state: StateDict): StateDifference {
  const own = new Map(module.namedParameters());
  const difference: StateDifference = { missing: [], unexpected: [], mismatched: [] };
  for (const [name, variable] of own) {
    const record = state.tensors.get(name);
    if (record === undefined) difference.missing.push(name);
    else if (String(record.shape) !== String(variable.shape)) difference.mismatched.push({ name, expected: variable.shape, got: record.shape });
  }
  for (const name of state.tensors.keys()) if (!own.has(name)) difference.unexpected.push(name);
  return difference;
}

/** Options of {@link loadState}. */
export interface LoadStateOptions {
  /** Whether every name must be on both sides. Shapes must always agree. Default `true`. */
  strict?: boolean;
}

/**
 * Copies a state dict into a module's parameters, converted to float32. Nothing is written before names and shapes
 * have been checked.
 *
 * @returns the difference, which is empty when `strict`
 * @throws CheckpointError that lists what is missing, unexpected or wrongly shaped
 */
export async function loadState(module: Module, state: StateDict, { strict = true }: LoadStateOptions = {}): Promise<StateDifference> {
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
  for (const [name, variable] of module.namedParameters()) {
    const record = state.tensors.get(name);
    if (record === undefined) continue;
    const values = await toFloat32(record);
    tf.tidy(() => variable.assign(tf.tensor(values, variable.shape)));
  }
  return difference;
}

/** The values of every parameter and buffer by name, read back from the device. */
export async function readState(module: Module): Promise<Map<string, { shape: number[]; values: Float32Array }>> {
  const state = new Map<string, { shape: number[]; values: Float32Array }>();
  for (const [name, variable] of module.namedParameters()) state.set(name, { shape: variable.shape, values: Float32Array.from(await variable.data()) });
  return state;
}

function list(title: string, names: readonly string[], most = 8): string {
  if (names.length === 0) return '';
  const shown = names.slice(0, most).join(', ');
  return `${title} (${names.length}): ${shown}${names.length > most ? `, and ${names.length - most} more` : ''}`;
}

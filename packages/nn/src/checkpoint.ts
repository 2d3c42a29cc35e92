import { CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import { type StateDict, writableTensor, writeSafetensors } from '@tinyfusion/weights';
import { type Module, requireStorable } from './module.js';
import { readState } from './state.js';

/** Key of a model's type and configuration in a checkpoint's metadata. */
export const MODEL_KEY = 'tinyfusion.model';

/** Options of {@link toSafetensors}. */
export interface ToSafetensorsOptions extends LongTaskOptions {
  /** What the model is, e.g. `'DiT'`. */
  type: string;
  /** Everything that its constructor needs; plain JSON. */
  config: object;
  /** Type of the stored values. Default `'F32'`; `'F16'` takes half the space. */
  dtype?: 'F32' | 'F16';
  /** Further text, e.g. how it was trained; what a file says there of its model is left out. */
  metadata?: Iterable<readonly [string, string]>;
}

/**
 * A model as a safetensors file from which alone it can be built again.
 * @throws ArgumentError where it holds what the file has no place for, as adapters beside its layers; CheckpointError
 * where a finite value is beyond the range of F16, which was asked for; CancelledError
 */
export async function toSafetensors(module: Module, { type, config, dtype = 'F32', metadata = [], ...task }: ToSafetensorsOptions): Promise<Uint8Array<ArrayBuffer>> {
  requireStorable(`save ${type}`, module);
  const state = await readState(module, task);
  const tensors = [...state].map(([name, { shape, values }]) => [name, writableTensor(values, shape, dtype, name)] as const);
  // keys are to be distinct: the metadata of the file that the model came from says what it was then
  return writeSafetensors(tensors, new Map([...metadata, [MODEL_KEY, JSON.stringify({ type, config })]]));
}

/**
 * The configuration stored in a checkpoint.
 * @param type what the model must be
 * @throws CheckpointError where the checkpoint has none, or is of another type
 */
export function storedConfig<T extends object>(state: StateDict, type: string): T {
  const text = state.metadata.get(MODEL_KEY);
  if (text === undefined) throw new CheckpointError(`the checkpoint says nothing about its model (no ${MODEL_KEY} in its metadata); build the ${type} by its configuration and use loadState`);
  let stored: { type?: unknown; config?: unknown };
  try {
    stored = JSON.parse(text) as typeof stored;
  } catch (cause) {
    throw new CheckpointError(`the checkpoint's ${MODEL_KEY} is no JSON`, { cause });
  }
  if (stored?.type !== type || typeof stored.config !== 'object' || stored.config === null) throw new CheckpointError(`the checkpoint holds ${JSON.stringify(stored?.type)}, expected ${JSON.stringify(type)}`);
  return stored.config as T;
}

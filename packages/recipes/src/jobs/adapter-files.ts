import { ArgumentError, CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import type { SavedAdapter } from '@tinyfusion/lora';
import type { StateDict } from '@tinyfusion/weights';
import { loadWeights, openFile } from './weights-file.js';

/** Adapters as PEFT saves them, on the command line: a folder or its `adapter_model.safetensors`, and how much of it after an @. */
export interface AdapterChoice {
  lora?: readonly string[] | undefined;
}

/**
 * A checkpoint with adapters in its weights, whatever they are held as afterwards.
 * @param chosen paths, each with `@strength` or not. Default: none
 * @throws CheckpointError where files are missing or do not fit the checkpoint
 */
export async function withAdapters(state: StateDict, chosen: readonly string[] | undefined, context: LongTaskOptions): Promise<StateDict> {
  if (chosen === undefined || chosen.length === 0) return state;
  const { mergeIntoState } = await import('@tinyfusion/lora');
  return mergeIntoState(state, await Promise.all(chosen.map((text) => openAdapter(text, context))));
}

async function openAdapter(text: string, context: LongTaskOptions): Promise<SavedAdapter> {
  const { path, weight } = strengthOf(text);
  const weights = path.endsWith('.safetensors') ? path : `${path.replace(/\/$/, '')}/adapter_model.safetensors`;
  const config = weights.replace(/[^/\\]+$/, 'adapter_config.json');
  return { config: await textOf(config, path, context), state: await loadWeights(weights, context), weight };
}

/** `'style@0.8'` → the path and its strength, 1 where none is said. */
export function strengthOf(text: string): { path: string; weight: number } {
  const at = text.lastIndexOf('@');
  const weight = at < 0 || text.slice(at + 1).trim() === '' ? Number.NaN : Number(text.slice(at + 1));
  const path = Number.isFinite(weight) ? text.slice(0, at) : text;
  if (path === '') throw new ArgumentError('--lora', text, 'a folder as PEFT saves it, with @ and a strength or without, e.g. style@0.8');
  return Number.isFinite(weight) ? { path, weight } : { path, weight: 1 };
}

async function textOf(config: string, path: string, context: LongTaskOptions): Promise<string> {
  try {
    await using file = await openFile(config, context);
    return new TextDecoder().decode(await file.read(0, file.size));
  } catch (cause) {
    throw new CheckpointError(`--lora ${path}: ${cause instanceof Error ? cause.message : String(cause)}; PEFT saves it beside adapter_model.safetensors`, { cause });
  }
}

import { ArgumentError, CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import type { SavedAdapter } from '@tinyfusion/lora';
import { readPruneRecord } from '@tinyfusion/pruning';
import type { StateDict } from '@tinyfusion/weights';
import type { Shared } from '../loop.js';
import { rebuilt } from './rebuilt.js';
import { loadWeights, openFile } from './weights-file.js';

/** Adapters as PEFT saves them, on the command line: a folder or its `adapter_model.safetensors`, and how much of it after an @. */
export interface AdapterChoice {
  lora?: readonly string[] | undefined;
}

/**
 * A checkpoint with adapters in its weights, whatever they are held as afterwards. One that counts more blocks than a pruned
 * checkpoint has is its teacher's, and is fitted by the record of the cut; blocks are numbered from 0 then.
 * @param chosen paths, each with `@strength` or not. Default: none
 * @throws CheckpointError where files are missing or do not fit the checkpoint
 */
export async function withAdapters(state: StateDict, chosen: readonly string[] | undefined, context: LongTaskOptions & Shared): Promise<StateDict> {
  if (chosen === undefined || chosen.length === 0) return state;
  const { mergeIntoState, remapPeft } = await import('@tinyfusion/lora');
  const record = readPruneRecord(state.metadata);
  const fitted = async (text: string): Promise<SavedAdapter> => {
    const adapter = await openAdapter(text, context);
    // several stacks are counted through, and a linear layer is a block that no teacher has
    if (record === undefined || record.stack.includes(',') || record.replaced !== undefined) return adapter;
    const { stack, kept } = record;
    if (!blocksOf(adapter.state, stack).some((block) => block >= kept.length)) return adapter;
    if ((context.collective?.rank ?? 0) === 0) console.log(`${text}: a teacher's adapter, of which the ${kept.length} layers are taken that were kept`);
    return { ...adapter, ...remapPeft(adapter.config, adapter.state, kept, stack) };
  };
  return mergeIntoState(rebuilt(state), await Promise.all(chosen.map(fitted)));
}

/** Numbers of the blocks that an adapter is on. */
function blocksOf({ tensors }: StateDict, stack: string): number[] {
  return [...tensors.keys()].flatMap((name) => {
    const [first, number] = name.replace(/^base_model\.model\./, '').split('.');
    return first === stack ? [Number(number)] : [];
  });
}

async function openAdapter(text: string, context: LongTaskOptions): Promise<SavedAdapter> {
  const { path, weight } = strengthOf(text);
  const weights = path.endsWith('.safetensors') ? path : `${path.replace(/\/$/, '')}/adapter_model.safetensors`;
  const config = weights.replace(/[^/\\]+$/, 'adapter_config.json');
  return { config: await textOf(config, path, context), state: await loadWeights(weights, context), weight };
}

/** `'style@0.8'` → the path and its strength, 1 where none is said. */
function strengthOf(text: string): { path: string; weight: number } {
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

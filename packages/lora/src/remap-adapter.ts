import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import type { StateDict, TensorRecord } from '@tinyfusion/weights';
import { settingsAt } from './lora-options.js';
import { exactPattern } from './patterns.js';
import { type PeftConfig, readPeftConfig, settingsOfPeft } from './peft-config.js';
import { PEFT_PREFIX, layersIn, withoutPrefix } from './peft-names.js';

/**
 * A teacher's adapter for the model that was cut from it: tensors of removed blocks are left out, the others have the
 * numbers their blocks have now. Names may have PEFT's prefix. Where ranks or scales differ between layers by patterns,
 * {@link remapPeft} takes the configuration along.
 *
 * @param kept blocks of the teacher that were kept, ascending: `kept` of the `PruneRecord`
 * @param stack field that holds the blocks: `stack` of the record, for one stack at a time
 * @throws ArgumentError where `kept` is not ascending, or the adapter has blocks, but none in `stack`; CheckpointError where nothing would be left
 */
export function remapAdapter(state: StateDict, kept: readonly number[], stack: string): StateDict {
  const numberOf = renumbering(kept, stack, state.tensors.keys());
  const tensors = new Map<string, TensorRecord>();
  for (const [name, record] of state.tensors) {
    const renamed = numberOf(name);
    if (renamed !== undefined) tensors.set(renamed, record);
  }
  if (tensors.size === 0) throw new CheckpointError(`no tensor of the adapter is on a layer that was kept: its layers are ${[...state.tensors.keys()].slice(0, 4).join(', ')} …, the kept blocks ${stack}.${kept.join(`, ${stack}.`)}`);
  return { tensors, metadata: state.metadata };
}

/**
 * {@link remapAdapter} for PEFT's two files, as {@link fromPeft} takes them: the configuration names each layer that is
 * left, and keeps the rank and the alpha that the teacher's had by its patterns.
 */
export function remapPeft(config: unknown, state: StateDict, kept: readonly number[], stack: string): { config: PeftConfig; state: StateDict } {
  const known = readPeftConfig(config);
  const own = withoutPrefix(state);
  const settings = settingsOfPeft(known);
  const numberOf = renumbering(kept, stack, own.tensors.keys());
  const remapped: PeftConfig = { ...known, target_modules: [], exclude_modules: null, rank_pattern: {}, alpha_pattern: {}, layers_to_transform: null, layers_pattern: null };
  const targets: string[] = [];
  for (const path of layersIn(own)) {
    const renamed = numberOf(`${path}.`)?.slice(0, -1);
    if (renamed === undefined) continue;
    targets.push(renamed);
    const { rank, alpha } = settingsAt(settings, path);
    if (rank !== known.r) remapped.rank_pattern[exactPattern(renamed)] = rank;
    if (alpha !== known.lora_alpha) remapped.alpha_pattern[exactPattern(renamed)] = alpha;
  }
  return { config: { ...remapped, target_modules: targets }, state: remapAdapter(own, kept, stack) };
}

/** New names by old ones: the same outside of the stack, nothing for removed blocks. */
function renumbering(kept: readonly number[], stack: string, names: Iterable<string>): (name: string) => string | undefined {
  if (stack === '' || stack.includes(',')) throw new ArgumentError('remapAdapter: stack', stack, "one stack's name, e.g. 'blocks'; for several call it once for each, with the indices within it");
  if (kept.length === 0 || !kept.every((layer, i) => Number.isInteger(layer) && layer >= 0 && (i === 0 || layer > kept[i - 1]!))) throw new ArgumentError('remapAdapter: kept', kept, 'ascending block indices');
  const stacks = stacksOf(names);
  if (stacks.length > 0 && !stacks.includes(stack)) throw new ArgumentError('remapAdapter: stack', stack, `a stack that the adapter has layers in: ${stacks.join(', ')}; for one that it has none in there is nothing to renumber`);
  const place = new Map(kept.map((layer, i) => [layer, i]));
  return (name) => {
    const prefix = name.startsWith(`${PEFT_PREFIX}${stack}.`) ? `${PEFT_PREFIX}${stack}.` : `${stack}.`;
    const match = name.startsWith(prefix) ? /^(\d{1,6})(\..*)$/.exec(name.slice(prefix.length)) : null;
    if (match === null) return name;
    const now = place.get(Number(match[1]));
    return now === undefined ? undefined : `${prefix}${now}${match[2]}`;
  };
}

/** What is numbered in the tensors' names and has layers below its numbers: `'blocks'` of `blocks.0.attn.qkv.lora_A.weight`. */
function stacksOf(names: Iterable<string>): string[] {
  const own = (name: string): string => (name.startsWith(PEFT_PREFIX) ? name.slice(PEFT_PREFIX.length) : name);
  return [...new Set([...names].flatMap((name) => /^(.+?)\.\d{1,6}\.(?!lora_)/.exec(own(name))?.slice(1) ?? []))];
}

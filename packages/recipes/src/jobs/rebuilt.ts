import { CheckpointError } from '@tinyfusion/core';
import { MODEL_KEY } from '@tinyfusion/nn';
import { readPruneRecord, renumbered } from '@tinyfusion/pruning';
import type { StateDict } from '@tinyfusion/weights';

/** Names of depths in our models' configurations, by stack. */
const depthKeys: Readonly<Record<string, string>> = { blocks: 'depth', encoder_blocks: 'encoderDepth', decoder_blocks: 'decoderDepth' };

/**
 * Metadata whose configuration, where it is one of ours, is that of a model with fewer blocks.
 * @param kept indices of the blocks that stay, by stack
 */
export function withBlocks(metadata: ReadonlyMap<string, string>, kept: Readonly<Record<string, readonly number[]>>): Map<string, string> {
  const changed = new Map(metadata);
  const stored = storedModel(metadata.get(MODEL_KEY));
  if (stored === undefined) return changed;
  const own = Object.fromEntries(Object.entries(kept).flatMap(([stack, { length }]) => (depthKeys[stack] === undefined ? [] : [[depthKeys[stack], length]])));
  const thinned = stored.config['thinned'] as Record<string, string> | undefined;
  const parts = thinned === undefined || kept['blocks'] === undefined ? {} : { thinned: Object.fromEntries(kept['blocks'].flatMap((block, i) => (thinned[block] === undefined ? [] : [[i, thinned[block]]]))) };
  return changed.set(MODEL_KEY, JSON.stringify({ ...stored, config: { ...stored.config, ...own, ...parts } }));
}

/** @throws CheckpointError where the text is no model's configuration */
function storedModel(text: string | undefined): { config: Record<string, unknown> } | undefined {
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new CheckpointError(`the checkpoint's ${MODEL_KEY} is damaged: it is no JSON`, { cause });
  }
  const { config } = (value ?? {}) as { config?: unknown };
  if (typeof config !== 'object' || config === null) throw new CheckpointError(`the checkpoint's ${MODEL_KEY} is damaged: it has no configuration`);
  return value as { config: Record<string, unknown> };
}

/**
 * A pruned checkpoint as loaders expect it: blocks numbered from 0 where they still have the teacher's numbers (0, 3, 5 …),
 * and the depth that they are. One without a prune record stays as it is.
 */
export function rebuilt(state: StateDict): StateDict {
  const record = readPruneRecord(state.metadata);
  if (record === undefined) return state;
  const blocks: Record<string, readonly number[]> = {};
  let whole = state;
  for (const stack of record.stack.split(',')) {
    const { state: next, kept } = renumbered(whole, stack);
    whole = next;
    blocks[stack] = kept;
  }
  return { ...whole, metadata: withBlocks(state.metadata, blocks) };
}

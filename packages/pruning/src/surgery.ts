import { CheckpointError } from '@tinyfusion/core';
import type { Module } from '@tinyfusion/nn';
import type { StateDict, TensorRecord } from '@tinyfusion/weights';
import { byIndex } from './choices.js';

/**
 * A state dict without the blocks that are not kept, the others renumbered from 0. Bytes are read when they are asked
 * for, from where they were.
 *
 * @param stack field that holds the blocks, e.g. `'blocks'`
 * @param kept indices of the blocks to keep
 * @throws CheckpointError where the state has no such stack; ArgumentError where an index is not in it
 */
export function pruneState(state: StateDict, stack: string, kept: readonly number[]): StateDict {
  const depth = stackDepth(state, stack);
  const place = new Map(byIndex(depth, kept).map((layer, i) => [layer, i]));
  const tensors = new Map<string, TensorRecord>();
  for (const [name, record] of state.tensors) {
    const block = blockOf(name, stack);
    if (block === undefined) tensors.set(name, record);
    else if (place.has(block.index)) tensors.set(`${stack}.${place.get(block.index)}${block.rest}`, record);
  }
  return { tensors, metadata: state.metadata };
}

/** Number of blocks of a stack in a state dict. @throws CheckpointError where there are none, with the stacks there are */
export function stackDepth(state: StateDict, stack: string): number {
  const indices = new Set<number>();
  for (const name of state.tensors.keys()) {
    const block = blockOf(name, stack);
    if (block !== undefined) indices.add(block.index);
  }
  if (indices.size === 0) {
    const stacks = new Set([...state.tensors.keys()].flatMap((name) => /^(.*?)\.\d+\./.exec(name)?.[1] ?? []));
    throw new CheckpointError(`the checkpoint has no blocks called ${stack}.0, ${stack}.1, …; it has: ${[...stacks].slice(0, 8).join(', ') || 'no stack at all'}`);
  }
  for (let i = 0; i < indices.size; i++) if (!indices.has(i)) throw new CheckpointError(`the checkpoint's stack ${stack} has ${indices.size} blocks but none numbered ${i}`);
  return indices.size;
}

/** Removes blocks from a model in memory and frees them; what is left is renumbered by its place in the list. */
export function pruneBlocks<B extends Module>(blocks: B[], kept: readonly number[]): void {
  const stay = new Set(byIndex(blocks.length, kept));
  const survivors = blocks.filter((block, i) => {
    if (!stay.has(i)) block.dispose();
    return stay.has(i);
  });
  blocks.splice(0, blocks.length, ...survivors);
}

function blockOf(name: string, stack: string): { index: number; rest: string } | undefined {
  if (!name.startsWith(`${stack}.`)) return undefined;
  const match = /^(\d{1,6})(\..+)$/.exec(name.slice(stack.length + 1));
  return match === null ? undefined : { index: Number(match[1]), rest: match[2]! };
}

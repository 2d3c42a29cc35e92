import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import type { Module } from '@tinyfusion/nn';
import type { StateDict, TensorRecord } from '@tinyfusion/weights';
import { blockOf } from './block-name.js';
import { byIndex } from './choices.js';
import { findStacks } from './find-stacks.js';

/**
 * A state dict without the blocks that are not kept, the others renumbered from 0. Bytes are read when they are asked
 * for, from where they were; whatever a layer has besides weights (scales, zero points) moves with it.
 *
 * @param stack field that holds the blocks, with its prefix, e.g. `'blocks'` or `'model.diffusion_model.double_blocks'`
 * @param kept indices of the blocks to keep
 * @throws CheckpointError where the state has no such stack; ArgumentError where an index is not in it
 */
export function pruneState(state: StateDict, stack: string, kept: readonly number[]): StateDict {
  const depth = stackDepth(state, stack);
  const place = new Map(byIndex(depth, kept).map((layer, i) => [layer, i]));
  return renamed(state, stack, (index) => place.get(index));
}

/**
 * {@link pruneState} of several stacks at once.
 * @param kept indices of the blocks to keep, by stack; stacks that are not named stay whole
 */
export function pruneStacks(state: StateDict, kept: Readonly<Record<string, readonly number[]>>): StateDict {
  const names = Object.keys(kept);
  if (names.length === 0) throw new ArgumentError('pruneStacks: kept', kept, 'kept blocks of at least one stack');
  const outer = names.find((a) => names.some((b) => b !== a && b.startsWith(`${a}.`)));
  if (outer !== undefined) throw new ArgumentError('pruneStacks: kept', names, `stacks beside each other, and ${outer} contains another`);
  return names.reduce((pruned, stack) => pruneState(pruned, stack, kept[stack]!), state);
}

/** Options of {@link stackDepth}. */
export interface StackDepthOptions {
  /** Whether numbers may be missing, as in files that tools cut without renumbering. Default `false`. */
  holes?: boolean;
}

/**
 * Number of blocks of a stack in a state dict.
 * @throws CheckpointError where there are none, with the stacks there are; where numbers are missing and `holes` is not set
 */
export function stackDepth(state: StateDict, stack: string, { holes = false }: StackDepthOptions = {}): number {
  const indices = blockIndices(state, stack);
  if (!holes) {
    for (const [i, index] of indices.entries()) {
      if (index !== i) throw new CheckpointError(`the checkpoint's stack ${stack} has ${indices.length} blocks but none numbered ${i}; a tool may have cut it without renumbering, which renumbered(state, ${JSON.stringify(stack)}) does`);
    }
  }
  return indices.length;
}

/** The numbers of a stack's blocks, ascending. @throws CheckpointError where there are none, with the stacks there are */
export function blockIndices(state: StateDict, stack: string): number[] {
  const indices = new Set<number>();
  for (const name of state.tensors.keys()) {
    const block = blockOf(name, stack);
    if (block !== undefined) indices.add(block.index);
  }
  if (indices.size === 0) {
    const there = findStacks(state).stacks.map(({ name, blocks }) => `${name} (${blocks})`);
    throw new CheckpointError(`the checkpoint has no blocks called ${stack}.0, ${stack}.1, …; it has: ${there.slice(0, 8).join(', ') || 'no stack at all'}`);
  }
  return [...indices].toSorted((a, b) => a - b);
}

/** A state dict whose blocks have other numbers, or none: then their tensors are left out. */
export function renamed(state: StateDict, stack: string, numberOf: (index: number) => number | undefined): StateDict {
  const tensors = new Map<string, TensorRecord>();
  for (const [name, record] of state.tensors) {
    const block = blockOf(name, stack);
    const number = block === undefined ? undefined : numberOf(block.index);
    if (block === undefined) tensors.set(name, record);
    else if (number !== undefined) tensors.set(`${stack}.${number}${block.rest}`, record);
  }
  return { tensors, metadata: state.metadata };
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

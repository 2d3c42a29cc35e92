import { ArgumentError } from '@tinyfusion/core';
import type { StateDict } from '@tinyfusion/weights';
import { blockIndices, renamed, stackDepth } from './surgery.js';

/** A state dict with its blocks numbered from 0, and the numbers they had. */
export interface Renumbered {
  state: StateDict;
  /** The number that each block had, ascending. */
  kept: number[];
}

/**
 * A checkpoint that was cut without renumbering (blocks 0, 3, 5, …) as loaders expect it (0, 1, 2, …). One without holes
 * stays as it is. Nothing is read.
 *
 * @throws CheckpointError where there is no such stack, with those there are
 */
export function renumbered(state: StateDict, stack: string): Renumbered {
  const kept = blockIndices(state, stack);
  const place = new Map(kept.map((index, i) => [index, i]));
  return { state: renamed(state, stack, (index) => place.get(index)), kept };
}

/**
 * The reverse of {@link renumbered}, for tools that expect a cut model's blocks under their original numbers and pass over
 * missing ones.
 *
 * @param kept the original number of each block, ascending: a `PruneRecord`'s
 * @throws ArgumentError where they are not as many as the blocks, or not ascending
 */
export function withHoles(state: StateDict, stack: string, kept: readonly number[]): StateDict {
  const depth = stackDepth(state, stack);
  if (kept.length !== depth) throw new ArgumentError('withHoles: kept', kept.length, `the original numbers of the stack's ${depth} blocks`);
  if (!kept.every((k, i) => Number.isInteger(k) && k >= 0 && (i === 0 || k > kept[i - 1]!))) throw new ArgumentError('withHoles: kept', kept, 'ascending block numbers');
  return renamed(state, stack, (index) => kept[index]);
}

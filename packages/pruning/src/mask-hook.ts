import { ArgumentError } from '@tinyfusion/core';
import type { BlockHook } from '@tinyfusion/nn';

/**
 * Runs a model as if only `kept` blocks were there; the others are not computed. No surgery.
 * @param depth blocks that the model is to have. Default: as many as it has
 * @throws ArgumentError when a stack runs that has another depth, or too few blocks for those that are kept
 */
export function maskHook(kept: readonly number[], depth?: number): BlockHook {
  const stay = new Set(kept);
  const highest = Math.max(-1, ...kept);
  return (site, x, run) => {
    if (depth === undefined ? highest >= site.depth : depth !== site.depth) throw new ArgumentError('maskHook: blocks of the model', site.depth, depth === undefined ? `more than ${highest}, the highest that is kept` : `${depth}, which the mask is for`);
    return stay.has(site.index) ? run(x) : x;
  };
}

/** Branches left out of blocks, by the blocks' indices. */
export interface DroppedBranches {
  readonly attention?: readonly number[] | undefined;
  readonly mlp?: readonly number[] | undefined;
}

/** A `branchHook` that leaves out attention or MLP of some blocks, whose rest runs. */
export function branchMaskHook({ attention = [], mlp = [] }: DroppedBranches): BlockHook {
  const gone = { attention: new Set(attention), mlp: new Set(mlp) };
  return (site, x, run) => (site.branch !== undefined && gone[site.branch].has(site.index) ? x : run(x));
}

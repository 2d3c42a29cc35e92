import type { BlockHook } from '@tinyfusion/nn';

/** Runs a model as if only `kept` blocks were there; the others are not computed. No surgery. */
export function maskHook(kept: readonly number[]): BlockHook {
  const stay = new Set(kept);
  return (site, x, run) => (stay.has(site.index) ? run(x) : x);
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

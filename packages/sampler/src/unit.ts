import { ArgumentError } from '@tinyfusion/core';
import type { BlockSite } from '@tinyfusion/nn';

/**
 * The mask that belongs to a site: a block's index, or for a branch 2 · block, plus 1 for the MLP.
 * @throws ArgumentError where there are not `units` of them in the stack
 */
export function unitOf(what: string, { index, depth, branch }: BlockSite, units: number): number {
  const expected = branch === undefined ? depth : 2 * depth;
  if (units !== expected) throw new ArgumentError(what, units, branch === undefined ? `one mask for each of the ${depth} blocks` : `two masks for each of the ${depth} blocks: attention and MLP`);
  return branch === undefined ? index : 2 * index + (branch === 'mlp' ? 1 : 0);
}

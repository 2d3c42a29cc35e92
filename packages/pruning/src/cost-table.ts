import { ArgumentError } from '@tinyfusion/core';
import { byIndex } from './choices.js';
import type { DroppedBranches } from './mask-hook.js';

/** What the blocks of a stack cost; plain JSON, and a budget's costs. */
export interface CostTable {
  /** Milliseconds, or multiples of the mean block. */
  unit: 'ms' | 'relative';
  /** One a block. */
  blocks: number[];
  /** One a block: its attention branch, and its MLP; the rest of a block (its condition) is in neither. */
  attention?: number[];
  mlp?: number[];
  /** The model without any block: embeddings, final layer, the way to the device and back. */
  rest: number;
  /** One a block: the middle half of what was measured of it is this wide. Absent where it was not measured. */
  spread?: number[];
}

/** The same costs as multiples of the mean block's, which are comparable between devices. */
export function relativeCosts(table: CostTable): CostTable {
  const mean = table.blocks.reduce((a, b) => a + b, 0) / table.blocks.length;
  if (!(mean > 0)) throw new ArgumentError('relativeCosts: mean block', mean, 'more than 0; measure with more repeats or a larger batch');
  const scaled = (values: readonly number[]): number[] => values.map((v) => v / mean);
  const { attention, mlp, spread } = table;
  return {
    unit: 'relative',
    blocks: scaled(table.blocks),
    ...(attention === undefined ? {} : { attention: scaled(attention) }),
    ...(mlp === undefined ? {} : { mlp: scaled(mlp) }),
    rest: table.rest / mean,
    ...(spread === undefined ? {} : { spread: scaled(spread) }),
  };
}

/**
 * What a forward pass costs with only `kept` blocks, in the table's unit; with all of them, the whole model's. A kept block
 * that loses both branches still costs what it has beside them; surgery removes it, so leave it out of `kept`.
 * @param dropped branches that kept blocks have lost
 */
export function passCost(table: CostTable, kept: readonly number[], { attention = [], mlp = [] }: DroppedBranches = {}): number {
  const gone = [[attention, table.attention], [mlp, table.mlp]] as const;
  return byIndex(table.blocks.length, kept).reduce((sum, block) => {
    const less = gone.reduce((cost, [dropped, branch]) => {
      if (!dropped.includes(block)) return cost;
      if (branch === undefined) throw new ArgumentError('passCost: table', 'without branches', 'attention and mlp, one number a block; measure with `branches: true`');
      return cost + branch[block]!;
    }, 0);
    return sum + Math.max(0, table.blocks[block]! - less);
  }, table.rest);
}

import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { OptionGroup } from './groups.js';
import type { OptionGates } from './option-gates.js';

/** What the branches of each block cost, e.g. in ms; a table of `measureBlocks` of the pruning package, with `branches`, is one. */
export interface BranchCosts {
  /** One a block. */
  readonly attention?: readonly number[];
  /** One a block. */
  readonly mlp?: readonly number[];
  /** One a whole block: what it costs beside its branches (its condition) goes when both go. Default: nothing beside them. */
  readonly blocks?: readonly number[];
}

/** Costs of units in pairs: the branches of each block. */
export interface PairedCosts {
  /** One a unit. */
  readonly units: readonly number[];
  /** One a pair of units: what comes on top where either of them is kept. */
  readonly own: readonly number[];
}

/** One a layer or branch, finite and from 0; or those of branches with their blocks' own ({@link branchCosts}). */
export type UnitCosts = readonly number[] | PairedCosts;

/**
 * The costs in the order of {@link BranchGates}' units: attention and MLP of the first block, of the second, …; and what
 * each block costs beside them, which is paid until both are gone, as surgery then removes the block.
 * @throws ArgumentError where the table has no branches, or not one of each a block
 */
export function branchCosts({ attention, mlp, blocks }: BranchCosts): PairedCosts {
  if (attention === undefined || mlp === undefined) throw new ArgumentError('branchCosts: table', 'without branches', 'attention and mlp, one number a block; measure with `branches: true`');
  for (const [name, { length }] of Object.entries({ mlp, ...(blocks === undefined ? {} : { blocks }) })) {
    if (length !== attention.length) throw new ArgumentError(`branchCosts: ${name}`, length, `${attention.length} numbers, as attention has`);
  }
  return {
    units: attention.flatMap((cost, block) => [cost, mlp[block]!]),
    own: attention.map((cost, block) => (blocks === undefined ? 0 : Math.max(0, blocks[block]! - cost - mlp[block]!))),
  };
}

/**
 * Σ p · cost over the options of all groups, p being an option's probability under softmax(scaling · gate):
 * differentiable, to be added to the loss with a weight, or hinged at a budget.
 *
 * @returns a scalar in the costs' unit
 * @throws ArgumentError where the costs do not fit, or a group is relaxed
 */
export function expectedCost(gates: OptionGates, costs: UnitCosts, { scaling }: { scaling: number }): tf.Scalar {
  const groups = gates.groups.map((group): OptionGroup => {
    if (group.relaxed === true) throw new ArgumentError('expectedCost: gates', `a relaxed group, ${group.kept}:${group.size}`, 'groups whose options are listed; raise mostOptions, or use smaller groups');
    return group;
  });
  const prices = optionCosts('expectedCost', groups, costs);
  return tf.tidy(() => tf.addN(prices.map((options, i) => tf.sum(tf.mul(tf.softmax(tf.mul(gates.gates[i]!, scaling)), [options])))) as tf.Scalar);
}

/**
 * What each option of each group costs.
 * @param what who asks, for messages
 * @throws ArgumentError unless there is one cost a unit, finite and not negative; where a pair that shares a cost is in two groups
 */
export function optionCosts(what: string, groups: readonly OptionGroup[], costs: UnitCosts): number[][] {
  const { units, own } = 'units' in costs ? costs : { units: costs, own: [] };
  const count = sum(groups.map(({ size }) => size));
  if (units.length !== count) throw new ArgumentError(`${what}: costs`, units.length, `${count} numbers, one for each layer or branch`);
  const bad = [...units, ...own].find((c) => !(c >= 0 && c < Infinity));
  if (bad !== undefined) throw new ArgumentError(`${what}: costs`, bad, 'finite numbers from 0');
  const shared = (unit: number): number => own[unit >> 1] ?? 0;
  const split = groups.find(({ start }) => start % 2 === 1 && shared(start) > 0);
  if (split !== undefined) throw new ArgumentError(`${what}: groups`, `one that begins inside block ${split.start >> 1}`, 'groups that hold both branches of each block, as a block has a cost of its own; or costs without `blocks`');
  return groups.map(({ start, options }) => options.map((kept) => {
    const pairs = new Set(kept.map((j) => (start + j) >> 1));
    return sum(kept.map((j) => units[start + j]!)) + sum([...pairs].map((pair) => shared(2 * pair)));
  }));
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

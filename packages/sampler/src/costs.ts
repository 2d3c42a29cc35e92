import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { OptionGates } from './option-gates.js';

/** What the branches of each block cost, e.g. in ms; a table of `measureBlocks` of the pruning package, with `branches`, is one. */
export interface BranchCosts {
  /** One a block. */
  readonly attention?: readonly number[];
  /** One a block. */
  readonly mlp?: readonly number[];
}

/**
 * The costs in the order of {@link BranchGates}' units: attention and MLP of the first block, of the second, …
 * @throws ArgumentError where the table has no branches, or not one of each a block
 */
export function branchCosts({ attention, mlp }: BranchCosts): number[] {
  if (attention === undefined || mlp === undefined) throw new ArgumentError('branchCosts: table', 'without branches', 'attention and mlp, one number a block; measure with `branches: true`');
  if (attention.length !== mlp.length) throw new ArgumentError('branchCosts: mlp', mlp.length, `${attention.length} numbers, as attention has`);
  return attention.flatMap((cost, block) => [cost, mlp[block]!]);
}

/**
 * Σ p · cost over all layers or branches, p being the probability of each to be kept under softmax(scaling · gate):
 * differentiable, to be added to the loss with a weight, or hinged at a budget.
 *
 * @param costs one a layer, or a branch ({@link branchCosts})
 * @returns a scalar in the costs' unit
 * @throws ArgumentError where the costs do not fit, or a group is relaxed
 */
export function expectedCost(gates: OptionGates, costs: readonly number[], { scaling }: { scaling: number }): tf.Scalar {
  checkCosts('expectedCost', costs, gates.groups.reduce((sum, { size }) => sum + size, 0));
  return tf.tidy(() => {
    const terms = gates.groups.map((group, i) => {
      if (group.relaxed === true) throw new ArgumentError('expectedCost: gates', `a relaxed group, ${group.kept}:${group.size}`, 'groups whose options are listed; raise mostOptions, or use smaller groups');
      return tf.sum(tf.mul(tf.softmax(tf.mul(gates.gates[i]!, scaling)), [group.options.map((option) => option.reduce((sum, j) => sum + costs[group.start + j]!, 0))]));
    });
    return tf.addN(terms) as tf.Scalar;
  });
}

/** @throws ArgumentError unless there are `units` costs, finite and not negative */
export function checkCosts(what: string, costs: readonly number[], units: number): void {
  if (costs.length !== units) throw new ArgumentError(`${what}: costs`, costs.length, `${units} numbers, one for each layer or branch`);
  const bad = costs.find((c) => !(c >= 0 && c < Infinity));
  if (bad !== undefined) throw new ArgumentError(`${what}: costs`, bad, 'finite numbers from 0');
}

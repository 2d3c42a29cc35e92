import { ArgumentError } from '@tinyfusion/core';
import { type Budget, type PricedDecision, decideWithin } from './budget.js';
import { type BranchCosts, branchCosts } from './costs.js';
import { type Decision, decide } from './decision.js';
import { type GroupScheme, type OptionGroup, parseGroups } from './groups.js';
import { OptionGates } from './option-gates.js';

/**
 * `'block'`: each block keeps both branches, its attention, its MLP, or neither, so that the number kept is open and a cost
 * or budget has to bound it. Or N:M groups over the 2 · depth branches, e.g. `'1:2'`: one branch of each block.
 */
export type BranchScheme = 'block' | GroupScheme;

/** Options of {@link BranchGates.decideBranches}. */
export interface DecideBranchesOptions {
  /** Cost of each branch, and of each block with both. */
  costs: BranchCosts;
  /** Most that what is kept may cost together, in the unit of `costs`; what a block costs beside its branches counts where one of them is kept. */
  budget: number;
  /** Share of the budget that is used, where choices can ({@link Budget}). Default 0. */
  use?: number;
}

/** Branches by block. */
export interface Branches {
  /** Indices of blocks, ascending. */
  attention: number[];
  /** Indices of blocks, ascending. */
  mlp: number[];
}

/** What gates over branches have decided; `kept` holds units: 2 · block for attention, one more for the MLP. */
export interface BranchDecision extends Decision {
  /** Blocks whose branches stay. */
  keptBranches: Branches;
  /** Blocks whose branches go, as `branchMaskHook` of the pruning package takes them. */
  droppedBranches: Branches;
  /** Cost of what is kept, with what those blocks cost beside their branches; absent where no costs were given. */
  cost?: number;
}

/** Learnable choices among the attention and MLP branches of a stack: finer than the paper, which names this as future work. */
export class BranchGates extends OptionGates<OptionGroup> {
  /** Number of blocks. */
  readonly depth: number;

  /**
   * @param options `init`: first value of every gate. Default 0.02
   * @throws ArgumentError where the scheme does not fit 2 · depth branches, or a group has too many options to list
   */
  constructor(scheme: BranchScheme, depth: number, { init = 0.02 }: { init?: number } = {}) {
    super(branchGroups(scheme, depth), init);
    this.depth = depth;
  }

  /**
   * The decision so far; reads the gates back. Without a budget the most likely option of each group; with one, the most
   * likely combination that keeps to it and is something ({@link decideWithin}).
   *
   * @throws ArgumentError where the budget cannot be met, with the least that can
   */
  async decideBranches(scaling: number, options?: DecideBranchesOptions): Promise<BranchDecision> {
    const values = (await Promise.all(this.gates.map((gate) => gate.data()))) as Float32Array[];
    return branchDecision(this.groups, values, scaling, options);
  }
}

/**
 * As {@link BranchGates.decideBranches}, from values of the gates, e.g. their averages.
 * @param gates values by group, one an option
 */
export function branchDecision(groups: readonly OptionGroup[], gates: readonly ArrayLike<number>[], scaling: number, options?: DecideBranchesOptions): BranchDecision {
  const bounds: Budget | undefined = options === undefined ? undefined : { ...options, costs: branchCosts(options.costs) };
  const decision: Decision | PricedDecision = bounds === undefined ? decide(groups, gates, scaling) : decideWithin(groups, gates, scaling, bounds);
  const kept = new Set(decision.kept);
  const blocks = Array.from({ length: groups.reduce((sum, { size }) => sum + size, 0) / 2 }, (_, block) => block);
  const where = (stays: boolean): Branches => ({ attention: blocks.filter((b) => kept.has(2 * b) === stays), mlp: blocks.filter((b) => kept.has(2 * b + 1) === stays) });
  return { ...decision, keptBranches: where(true), droppedBranches: where(false) };
}

function branchGroups(scheme: BranchScheme, depth: number): OptionGroup[] {
  if (!Number.isInteger(depth) || depth < 1) throw new ArgumentError('BranchGates: depth', depth, 'an integer from 1');
  if (scheme === 'block') return Array.from({ length: depth }, (_, block) => ({ start: 2 * block, size: 2, options: [[0, 1], [0], [1], []] }));
  return parseGroups(scheme, 2 * depth).map((group): OptionGroup => {
    if (group.relaxed) throw new ArgumentError('BranchGates: groups', `${group.kept}:${group.size}`, 'at most 20000 options a group, so that a budget can be met exactly; use smaller groups');
    return group;
  });
}

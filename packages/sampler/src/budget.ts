import { ArgumentError } from '@tinyfusion/core';
import { checkCosts } from './costs.js';
import { type Decision, decideOption, logitsOf } from './decision.js';
import type { OptionGroup } from './groups.js';

/** A budget for {@link decideWithin}. */
export interface Budget {
  /** One a layer or branch, finite and from 0. */
  costs: readonly number[];
  /** Most that what is kept may cost together, in the costs' unit. */
  budget: number;
}

/** A decision, and what it costs. */
export interface PricedDecision extends Decision {
  /** Sum over what is kept. */
  cost: number;
}

/** Sums in another order may differ by this much of the budget. */
const ROUNDING = 1e-9;

/** A choice in the first groups. */
interface PartialChoice {
  cost: number;
  logP: number;
  option: number;
  before?: PartialChoice;
}

/**
 * The most likely choice that a budget allows: the options whose log-probabilities under softmax(scaling · gate) have the
 * highest sum among all combinations that cost at most `budget`, the cheapest of equals. Exact: dynamic programming over the groups that holds on
 * to every partial choice for which none is both as cheap and as likely (Nemhauser & Ullmann 1969).
 *
 * @throws ArgumentError where no choice is that cheap, with the least that can be met; where costs or gates do not fit
 */
export function decideWithin(groups: readonly OptionGroup[], gates: readonly ArrayLike<number>[], scaling: number, { costs, budget }: Budget): PricedDecision {
  checkCosts('decideWithin', costs, groups.reduce((sum, { size }) => sum + size, 0));
  const logits = groups.map((group, i) => logitsOf(group, gates[i] ?? [], scaling, i));
  const choices = groups.map((group, i) => frontier(optionsOf(group, logits[i]!, costs)));
  const least = choices.map((options) => options[0]!.cost); // the cheapest comes first
  const cheapest = sum(least);
  const limit = budget + ROUNDING * Math.abs(budget);
  if (!(cheapest <= limit)) throw new ArgumentError('decideWithin: budget', budget, `at least ${cheapest}, the cost of the cheapest choice in these groups`);
  let states: PartialChoice[] = [{ cost: 0, logP: 0, option: -1 }];
  for (const [i, options] of choices.entries()) {
    const rest = sum(least.slice(i + 1));
    const grown = states.flatMap((before) => options.map(({ cost, logP, option }): PartialChoice => ({ cost: before.cost + cost, logP: before.logP + logP, option, before })));
    states = frontier(grown.filter(({ cost }) => cost + rest <= limit));
  }
  const best = states.at(-1)!; // dearer means likelier
  const options: number[] = [];
  for (let state: PartialChoice | undefined = best; state?.before !== undefined; state = state.before) options.unshift(state.option);
  const decided = groups.map((group, i) => decideOption(group, logits[i]!, options[i]!));
  return { kept: decided.flatMap((d) => d.kept), groups: decided, cost: best.cost };
}

function optionsOf({ start, options }: OptionGroup, logits: readonly number[], costs: readonly number[]): PartialChoice[] {
  const most = logits.reduce((a, b) => Math.max(a, b));
  const logTotal = most + Math.log(sum(logits.map((l) => Math.exp(l - most))));
  return options.map((kept, option) => ({ cost: sum(kept.map((j) => costs[start + j]!)), logP: logits[option]! - logTotal, option }));
}

/** Without those for which another is at most as dear and at least as likely; ascending in cost and probability. */
function frontier(partials: readonly PartialChoice[]): PartialChoice[] {
  let most = -Infinity;
  return partials.toSorted((a, b) => a.cost - b.cost || b.logP - a.logP).filter(({ logP }) => {
    if (logP <= most) return false;
    most = logP;
    return true;
  });
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

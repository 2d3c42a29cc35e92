import { ArgumentError } from '@tinyfusion/core';
import { type UnitCosts, optionCosts } from './costs.js';
import { type Decision, decideOption, logitsOf } from './decision.js';
import type { OptionGroup } from './groups.js';
import { type Priced, likeliestWithin } from './likeliest-within.js';

/** A budget for {@link decideWithin}. */
export interface Budget {
  /** What layers or branches cost. */
  costs: UnitCosts;
  /** Most that what is kept may cost together, in the costs' unit. */
  budget: number;
  /**
   * Share of the budget that is used, where choices can: each option is made as much likelier by its cost as that takes.
   * Gates that a penalty has pushed are cheap one by one, and together far below the budget. Default 0.
   */
  use?: number;
}

/** A decision, and what it costs. */
export interface PricedDecision extends Decision {
  /** Sum over what is kept. */
  cost: number;
}

/** Sums in another order may differ by this much of the budget. */
const ROUNDING = 1e-9;

/**
 * The most likely choice that a budget allows: the options whose log-probabilities under softmax(scaling · gate) have the
 * highest sum among all combinations that keep something and cost at most `budget`; of equals the dearest, which keeps most.
 * Exact, but where very many partial choices are worth holding on to: there it is at least as likely as every choice that
 * costs 0.1 % less than the budget ({@link likeliestWithin}). With `use` it may not be the likeliest, but is the likeliest of
 * those that cost as much as it does.
 *
 * @throws ArgumentError where no choice is that cheap, with the least that can be met; where costs or gates do not fit
 */
export function decideWithin(groups: readonly OptionGroup[], gates: readonly ArrayLike<number>[], scaling: number, { costs, budget, use = 0 }: Budget): PricedDecision {
  const prices = optionCosts('decideWithin', groups, costs);
  const logits = groups.map((group, i) => logitsOf(group, gates[i] ?? [], scaling, i));
  const cheapest = leastCost(groups, prices);
  const limit = budget + ROUNDING * Math.abs(budget);
  if (!(cheapest <= limit)) throw new ArgumentError('decideWithin: budget', budget, `at least ${cheapest}, the cost of the cheapest choice in these groups`);
  const choices = groups.map(({ options }, i) => {
    const logP = logProbabilities(logits[i]!);
    return options.map((kept, option): Priced => ({ cost: prices[i]![option]!, logP: logP[option]!, empty: kept.length === 0 }));
  });
  const costOf = (chosen: readonly number[]): number => chosen.reduce((sum, option, i) => sum + prices[i]![option]!, 0);
  const least = use * Math.min(budget, prices.reduce((sum, options) => sum + Math.max(...options), 0));
  const chosen = usingBudget(choices, limit, (choice) => costOf(choice) >= least);
  const decided = groups.map((group, i) => decideOption(group, logits[i]!, chosen[i]!));
  return { kept: decided.flatMap((d) => d.kept), groups: decided, cost: costOf(chosen) };
}

/** Halvings of what a unit of cost is worth, until the least that uses enough of the budget. */
const HALVINGS = 10;

/** The likeliest choice where a unit of cost adds to log-probability, as little as makes it enough; where nothing does, the dearest. */
function usingBudget(choices: readonly (readonly Priced[])[], limit: number, enough: (chosen: readonly number[]) => boolean): number[] {
  const worth = (perCost: number): number[] => likeliestWithin(choices.map((options) => options.map((option) => ({ ...option, logP: option.logP + perCost * option.cost }))), limit);
  const chosen = worth(0);
  if (enough(chosen)) return chosen;
  // more than any difference in likelihood that an option may make
  const some = choices.flat().filter(({ logP }) => logP > -Infinity);
  const [unlikely, cheap] = [Math.min(...some.map(({ logP }) => logP)), Math.min(...some.map(({ cost }) => cost).filter((cost) => cost > 0))];
  let [low, high] = [0, (1 - unlikely) / cheap];
  let best = worth(high);
  for (let i = 0; i < HALVINGS && enough(best); i++) {
    const middle = low === 0 ? high / 16 : Math.sqrt(low * high);
    const other = worth(middle);
    if (enough(other)) [best, high] = [other, middle];
    else low = middle;
  }
  return best;
}

/** The cost of the cheapest choice that keeps something. */
function leastCost(groups: readonly OptionGroup[], prices: readonly (readonly number[])[]): number {
  const least = groups.map(({ options }, i) => {
    const costs = (some: boolean): number[] => options.flatMap((kept, o) => (kept.length > 0 === some ? [prices[i]![o]!] : []));
    return { some: Math.min(...costs(true)), any: Math.min(...costs(true), ...costs(false)) };
  });
  const sum = least.reduce((a, { any }) => a + any, 0);
  return sum + Math.min(...least.map(({ some, any }) => some - any));
}

/** log softmax. */
function logProbabilities(logits: readonly number[]): number[] {
  const most = logits.reduce((a, b) => Math.max(a, b));
  const logTotal = most + Math.log(logits.reduce((sum, l) => sum + Math.exp(l - most), 0));
  return logits.map((l) => l - logTotal);
}

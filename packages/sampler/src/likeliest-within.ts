/** An option of a group. */
export interface Priced {
  /** From 0. */
  cost: number;
  /** Log-probability. */
  logP: number;
  /** Whether it keeps nothing. */
  empty: boolean;
}

/** Partial choices, one at each place; at place 0 the one that has kept nothing so far, the others from the cheapest on. */
interface Choices {
  cost: Float64Array;
  logP: Float64Array;
  /** The place among the choices before, and the option that was added. */
  from: Int32Array;
  option: Int32Array;
}

/** Candidates for the next partial choices. */
interface Candidates {
  cost: number[] | Float64Array;
  logP: number[] | Float64Array;
  from: number[] | Int32Array;
  option: number[] | Int32Array;
  /** From the cheapest on, of equals from the likeliest. Default: as they are. */
  order?: number[];
}

/** With more candidates than this, those of nearly the same cost count as one. */
const EXACT = 16_384;
/** With more options than this, the same. */
const EXACT_OPTIONS = 512;
/** The most by which that may misjudge the budget, as a share of it. */
const TOLERANCE = 1e-3;
/** Log-probabilities this close are equal. */
const TIE = 1e-9;

/**
 * One option a group: the likeliest combination that keeps something and costs at most `limit`, the dearest of equals.
 * Dynamic programming over the groups that holds on to every partial choice for which none is both as cheap and as likely
 * (Nemhauser & Ullmann 1969); their number can grow exponentially where likelihood follows cost. With more than
 * some thousand of them only the likeliest of those whose costs differ by less than 0.1 % of the limit over the number of
 * groups stays: the result is within the limit as before, and at least as likely as any choice that costs 0.1 % less.
 *
 * @param choices options by group; one combination has to be within the limit
 * @returns the option of each group
 */
export function likeliestWithin(choices: readonly (readonly Priced[])[], limit: number): number[] {
  const groups = choices.map((options) => frontierOf(options));
  const [leastRest, mostRest] = [restOf(choices, (costs) => Math.min(...costs)), restOf(choices, (costs) => Math.max(...costs))];
  const ceiling = Math.min(limit, (1 + TIE) * mostRest[0]!);
  const large = groups.map((options) => options.length > EXACT_OPTIONS);
  const width = (TOLERANCE * ceiling) / (groups.length + large.filter(Boolean).length);
  const levels: Choices[] = [{ cost: Float64Array.of(0), logP: Float64Array.of(0), from: Int32Array.of(0), option: Int32Array.of(0) }];
  for (const [i, all] of groups.entries()) {
    const options = large[i]! && width > 0 ? thinned(choices[i]!, all, width) : all;
    const before = levels.at(-1)!;
    const room = limit - leastRest[i + 1]!;
    const exact = before.cost.length * options.length <= EXACT || !(width > 0);
    const grown = (exact ? every : likeliestByCost)(before, choices[i]!, options, Math.min(room, ceiling), width);
    levels.push(next(grown, before, choices[i]!, { same: 1e-12 * ceiling, free: limit - mostRest[i + 1]! }));
  }
  const chosen: number[] = [];
  let place = levels.at(-1)!.cost.length - 1; // dearer means likelier
  for (let i = groups.length; i > 0; i--) {
    chosen.unshift(levels[i]!.option[place]!);
    place = levels[i]!.from[place]!;
  }
  return chosen;
}

/** Sums over the groups from each on. */
function restOf(choices: readonly (readonly Priced[])[], of: (costs: number[]) => number): number[] {
  const sums = [0];
  for (const options of choices.toReversed()) sums.unshift(sums[0]! + of(options.map(({ cost }) => cost)));
  return sums;
}

/** Options that may be worth taking: the empty one, and those for which no other is at most as dear and at least as likely. */
function frontierOf(options: readonly Priced[]): number[] {
  const some = [...options.keys()].filter((o) => !options[o]!.empty).sort((a, b) => options[a]!.cost - options[b]!.cost || options[b]!.logP - options[a]!.logP);
  const best = { cost: -Infinity, logP: -Infinity };
  const kept = some.filter((o) => {
    const { cost, logP } = options[o]!;
    const stays = logP > best.logP || (cost > best.cost && logP > best.logP - TIE);
    if (stays) Object.assign(best, { cost, logP: Math.max(best.logP, logP) });
    return stays;
  });
  return [...options.keys()].filter((o) => options[o]!.empty).concat(kept);
}

/** Of options of nearly the same cost the likeliest. */
function thinned(all: readonly Priced[], options: readonly number[], width: number): number[] {
  const best = new Map<number, number>();
  for (const o of options) {
    const at = all[o]!.empty ? -1 : Math.floor(all[o]!.cost / width);
    const other = best.get(at);
    if (other === undefined || all[o]!.logP > all[other]!.logP) best.set(at, o);
  }
  return [...best.values()];
}

/** All that can follow within the room. */
function every(before: Choices, all: readonly Priced[], options: readonly number[], room: number): Candidates {
  const grown = { cost: [] as number[], logP: [] as number[], from: [] as number[], option: [] as number[] };
  for (let place = 0; place < before.cost.length; place++) {
    for (const option of options) {
      const cost = before.cost[place]! + all[option]!.cost;
      if (cost > room || (place === 0 && all[option]!.empty)) continue;
      grown.cost.push(cost);
      grown.logP.push(before.logP[place]! + all[option]!.logP);
      grown.from.push(place);
      grown.option.push(option);
    }
  }
  const { cost, logP } = grown;
  return { ...grown, order: [...cost.keys()].sort((a, b) => cost[a]! - cost[b]! || logP[b]! - logP[a]!) };
}

/** The same, the likeliest alone of those whose costs are in the same interval of a width. */
function likeliestByCost(before: Choices, all: readonly Priced[], options: readonly number[], room: number, width: number): Candidates {
  const size = Math.floor(room / width) + 1;
  const best = { cost: new Float64Array(size), logP: new Float64Array(size).fill(-Infinity), from: new Int32Array(size), option: new Int32Array(size) };
  for (const option of options) {
    const { cost: own, logP: ownLogP, empty } = all[option]!;
    for (let place = empty ? 1 : 0; place < before.cost.length; place++) {
      const cost = before.cost[place]! + own;
      if (cost > room) break; // the others are dearer
      const logP = before.logP[place]! + ownLogP;
      const at = Math.floor(cost / width);
      if (logP <= best.logP[at]!) continue;
      best.cost[at] = cost;
      best.logP[at] = logP;
      best.from[at] = place;
      best.option[at] = option;
    }
  }
  return best;
}

/**
 * The partial choices to hold on to, with the one that keeps nothing.
 * @param free cost up to which everything can follow, so that only the likeliest is of use
 */
function next({ cost, logP, from, option, order }: Candidates, before: Choices, all: readonly Priced[], { same, free }: { same: number; free: number }): Choices {
  const kept = new Int32Array(cost.length);
  let count = 0;
  let [dearest, most] = [-Infinity, -Infinity];
  for (let at = 0; at < cost.length; at++) {
    const i = order === undefined ? at : order[at]!;
    if (!(logP[i]! > most + TIE || (logP[i]! > most - TIE && cost[i]! > dearest + same))) continue;
    if (cost[i]! <= free) count = 0;
    kept[count++] = i;
    [dearest, most] = [cost[i]!, Math.max(most, logP[i]!)];
  }
  const states: Choices = { cost: new Float64Array(count + 1), logP: new Float64Array(count + 1), from: new Int32Array(count + 1), option: new Int32Array(count + 1) };
  const empty = all.findIndex((o) => o.empty);
  states.logP[0] = empty < 0 ? -Infinity : before.logP[0]! + all[empty]!.logP;
  states.option[0] = Math.max(0, empty);
  for (let place = 1; place <= count; place++) {
    const i = kept[place - 1]!;
    states.cost[place] = cost[i]!;
    states.logP[place] = logP[i]!;
    states.from[place] = from[i]!;
    states.option[place] = option[i]!;
  }
  return states;
}

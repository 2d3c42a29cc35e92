import { ArgumentError } from '@tinyfusion/core';
import { gateCount, pick } from './choice.js';
import type { AnyGroup, OptionGroup, RelaxedGroup } from './groups.js';
import { topKInclusion } from './inclusion.js';

/** What one group has decided. */
export interface GroupDecision {
  /** Kept layers, as indices in the model. */
  kept: number[];
  /** Probability of this option under softmax(scaling · gate), in (0, 1]; of a relaxed group, the least of its kept layers' inclusion. */
  confidence: number;
  /** Probabilities of all options; empty where the group is relaxed. */
  probabilities: number[];
  /** Probability of each layer of the group to be kept: the sum over the options that hold it; of a relaxed group, to be among its N draws. */
  inclusion: number[];
}

/** What the gates have decided. */
export interface Decision {
  /** Kept layers of the model, ascending. */
  kept: number[];
  groups: GroupDecision[];
}

/**
 * The most likely option of each group (the first where there are several), and how sure it is. Of relaxed groups these are
 * the N largest logits, their most likely set too.
 * @param gates values by group, one an option (a layer where the group is relaxed)
 * @throws ArgumentError where gates and groups do not fit, or a gate is not finite
 */
export function decide(groups: readonly AnyGroup[], gates: readonly ArrayLike<number>[], scaling: number): Decision {
  const decided = groups.map((group, i) => {
    const logits = logitsOf(group, gates[i] ?? [], scaling, i);
    return group.relaxed === true ? decideRelaxed(group, logits) : decideOption(group, logits, logits.indexOf(logits.reduce((a, b) => Math.max(a, b))));
  });
  return { kept: decided.flatMap((d) => d.kept), groups: decided };
}

/** scaling · gate of one group, checked. */
export function logitsOf(group: AnyGroup, gates: ArrayLike<number>, scaling: number, i: number): number[] {
  const logits = Array.from(gates, (g) => g * scaling);
  if (logits.length !== gateCount(group)) throw new ArgumentError(`decide: gates of group ${i}`, logits.length, `${gateCount(group)} values`);
  if (!logits.every(Number.isFinite)) throw new ArgumentError(`decide: gates of group ${i}`, logits, 'finite values');
  return logits;
}

/** What it means to take one option of a group. */
export function decideOption({ start, size, options }: OptionGroup, logits: readonly number[], option: number): GroupDecision {
  const probabilities = softmax(logits);
  const inclusion = Array.from({ length: size }, () => 0);
  for (const [o, kept] of options.entries()) for (const j of kept) inclusion[j]! += probabilities[o]!;
  return { kept: options[option]!.map((j) => start + j), confidence: probabilities[option]!, probabilities, inclusion: inclusion.map((p) => Math.min(1, p)) };
}

function decideRelaxed(group: RelaxedGroup, logits: readonly number[]): GroupDecision {
  const { start, kept } = group;
  const best = pick(group, logits).toSorted((a, b) => a - b);
  const inclusion = topKInclusion(logits, kept);
  return { kept: best.map((j) => start + j), confidence: Math.min(...best.map((j) => inclusion[j]!)), probabilities: [], inclusion };
}

/** exp(x) / Σ exp(x). */
function softmax(logits: readonly number[]): number[] {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = logits.map((l) => Math.exp(l - most));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

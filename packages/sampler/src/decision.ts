import { ArgumentError } from '@tinyfusion/core';
import type { Group } from './groups.js';

/** What one group has decided. */
export interface GroupDecision {
  /** Kept layers, as indices in the model. */
  kept: number[];
  /** Probability of this option under softmax(scaling · gate), in (0, 1]. */
  confidence: number;
  /** Probabilities of all options. */
  probabilities: number[];
}

/** What the gates have decided. */
export interface Decision {
  /** Kept layers of the model, ascending. */
  kept: number[];
  groups: GroupDecision[];
}

/**
 * The most likely option of each group (the first where there are several), and how sure it is.
 * @param gates values by group, one an option
 */
export function decide(groups: readonly Group[], gates: readonly ArrayLike<number>[], scaling: number): Decision {
  const decided = groups.map(({ start, options }, i): GroupDecision => {
    const logits = Array.from(gates[i] ?? [], (g) => g * scaling);
    if (logits.length !== options.length) throw new ArgumentError(`decide: gates of group ${i}`, logits.length, `${options.length} values`);
    const most = Math.max(...logits);
    const weights = logits.map((l) => Math.exp(l - most));
    const total = weights.reduce((a, b) => a + b, 0);
    const best = logits.indexOf(most);
    if (best < 0) throw new ArgumentError(`decide: gates of group ${i}`, logits, 'finite values');
    return { kept: options[best]!.map((j) => start + j), confidence: weights[best]! / total, probabilities: weights.map((w) => w / total) };
  });
  return { kept: decided.flatMap((d) => d.kept), groups: decided };
}

/** One moment of mask learning. */
export interface DecisionRow {
  step: number;
  kept: number[];
  /** Confidence of the group of each kept layer, in the order of `kept`. */
  confidence: number[];
}

/** The decisions over the steps of mask learning, as data (the paper's figure 6). */
export class DecisionHistory {
  readonly rows: DecisionRow[];

  /** @param rows a saved history to go on from */
  constructor(rows: readonly DecisionRow[] = []) {
    this.rows = [...rows];
  }

  record(step: number, decision: Decision): void {
    this.rows.push({ step, kept: decision.kept, confidence: decision.groups.flatMap((g) => g.kept.map(() => g.confidence)) });
  }

  /** Steps since the decision last changed; 0 for the first row. */
  stableFor(): number {
    const last = this.rows.at(-1);
    if (last === undefined) return 0;
    const changed = this.rows.findLastIndex((row) => String(row.kept) !== String(last.kept));
    return last.step - this.rows[changed + 1]!.step;
  }

  toJSON(): DecisionRow[] {
    return this.rows;
  }
}

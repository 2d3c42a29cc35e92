import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import type { Decision } from './decision.js';

/** One moment of mask learning. */
export interface DecisionRow {
  step: number;
  kept: number[];
  /** Confidence of the group of each kept layer, in the order of `kept`. */
  confidence: number[];
  /** Probability of every layer of the model to be kept, by index: a column of the paper's figure 6. */
  inclusion: number[];
}

/** A {@link DecisionHistory} as plain JSON. */
export interface StoredDecisionHistory {
  version: 1;
  rows: DecisionRow[];
}

/** Options of {@link DecisionHistory.shouldStop}. */
export interface StopOptions {
  /** Least confidence of every group, in [0, 1]. */
  confidence: number;
  /** Steps for which the decision has not changed. */
  stableSteps: number;
}

/** The decisions over the steps of mask learning, as data (the paper's figure 6). */
export class DecisionHistory {
  readonly rows: DecisionRow[];

  /** @param rows earlier rows to go on from */
  constructor(rows: readonly DecisionRow[] = []) {
    this.rows = [...rows];
  }

  /** @throws CheckpointError where `stored` is no history, or one of another version */
  static fromJSON(stored: unknown): DecisionHistory {
    const { version, rows } = (typeof stored === 'object' && stored !== null ? stored : {}) as Partial<Record<string, unknown>>;
    if (version !== 1) throw new CheckpointError(`decision history: version is ${version === undefined ? 'missing' : JSON.stringify(version)}, expected 1; this is no history, or a newer program wrote it`);
    if (!Array.isArray(rows)) throw new CheckpointError(`decision history: rows is ${rows === undefined ? 'missing' : typeof rows}, expected a list`);
    const bad = rows.findIndex((row) => !isRow(row));
    if (bad >= 0) throw new CheckpointError(`decision history: row ${bad} is ${JSON.stringify(rows[bad])?.slice(0, 200)}, expected numbers in step, kept, confidence (one for each kept layer) and inclusion (one a layer)`);
    return new DecisionHistory(rows as DecisionRow[]);
  }

  record(step: number, decision: Decision): void {
    this.rows.push({ step, kept: decision.kept, confidence: decision.groups.flatMap((g) => g.kept.map(() => g.confidence)), inclusion: decision.groups.flatMap((g) => g.inclusion) });
  }

  /** Steps since the decision last changed; 0 for the first row. */
  stableFor(): number {
    const last = this.rows.at(-1);
    if (last === undefined) return 0;
    const changed = this.rows.findLastIndex((row) => String(row.kept) !== String(last.kept));
    return last.step - this.rows[changed + 1]!.step;
  }

  /**
   * Whether learning can end early: every group is sure enough, and the decision has stood for long enough.
   * @throws ArgumentError where a threshold is out of range
   */
  shouldStop({ confidence, stableSteps }: StopOptions): boolean {
    if (!(confidence >= 0 && confidence <= 1)) throw new ArgumentError('shouldStop: confidence', confidence, 'a number from 0 to 1');
    if (!(stableSteps >= 0)) throw new ArgumentError('shouldStop: stableSteps', stableSteps, 'a number of steps from 0');
    const last = this.rows.at(-1);
    return last !== undefined && last.confidence.every((c) => c >= confidence) && this.stableFor() >= stableSteps;
  }

  toJSON(): StoredDecisionHistory {
    return { version: 1, rows: this.rows };
  }
}

function isRow(row: unknown): row is DecisionRow {
  if (typeof row !== 'object' || row === null) return false;
  const { step, kept, confidence, inclusion } = row as Partial<Record<string, unknown>>;
  const numbers = (list: unknown): list is number[] => Array.isArray(list) && list.every((n) => typeof n === 'number');
  return typeof step === 'number' && numbers(kept) && numbers(confidence) && numbers(inclusion) && confidence.length === kept.length && kept.every((k) => Number.isInteger(k) && k >= 0 && k < inclusion.length);
}

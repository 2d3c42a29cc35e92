import { ArgumentError } from '@tinyfusion/core';
import { byIndex } from './choices.js';

/** A run of neighbouring blocks: from `start` up to, not including, `end`. */
export type Interval = readonly [start: number, end: number];

/** The maximal runs of blocks that are not kept, in order. */
export function removedRuns(depth: number, kept: readonly number[]): Interval[] {
  const stay = new Set(byIndex(depth, kept));
  const runs: Interval[] = [];
  for (let start = 0; start < depth; start++) {
    if (stay.has(start)) continue;
    let end = start;
    while (end < depth && !stay.has(end)) end++;
    runs.push([start, end]);
    start = end;
  }
  return runs;
}

/** Options of {@link chooseIntervals}. */
export interface ChooseIntervalsOptions {
  /** Most runs that are removed; 1 removes one contiguous run (Gromov et al. 2024). Default: as many as are best. */
  runs?: number;
  /** Whether the last block is never removed. Default `false`. */
  keepLast?: boolean;
}

/** What {@link chooseIntervals} found. */
export interface IntervalChoice {
  /** Ascending. */
  kept: number[];
  removed: Interval[];
  /** Σ (1 − similarity) over the removed runs. */
  cost: number;
}

/**
 * Keeps `count` blocks so that the removed runs change the representation least: the least Σ (1 − similarity[start][end])
 * over maximal runs of removed blocks, exactly, by dynamic programming in O(L³·runs). Contiguous runs chosen by CKA are
 * PPCL's idea; of equal choices the one that keeps earlier blocks is taken.
 *
 * @param similarity `[L + 1][L + 1]` between block boundaries, as `BlockSimilarity` measures it
 * @throws ArgumentError where the matrix is not square or not finite, or the count does not fit
 */
export function chooseIntervals(similarity: readonly (readonly number[])[], count: number, { runs, keepLast = false }: ChooseIntervalsOptions = {}): IntervalChoice {
  const depth = similarity.length - 1;
  if (depth < 1 || similarity.some((row) => row.length !== depth + 1 || !row.every(Number.isFinite))) throw new ArgumentError('chooseIntervals: similarity', `${similarity.length} rows`, 'a square matrix of finite numbers, one row a block boundary');
  if (!Number.isInteger(count) || count < 1 || count > depth) throw new ArgumentError('layers to keep', count, `an integer from 1 to the model's ${depth}`);
  const remove = depth - count;
  const most = Math.min(runs ?? remove, remove);
  if (runs !== undefined && (!Number.isInteger(runs) || runs < 1)) throw new ArgumentError('chooseIntervals: runs', runs, 'a positive integer');

  // best[p][q][r]: blocks before p are decided, block p − 1 was kept (or p is 0), q runs and r blocks are removed.
  // A kept block that is not there, at L, ends a last run: position L + 1.
  interface Cell {
    cost: number;
    /** Length of the run before the last kept block; 0 where there was none. */
    run: number;
  }
  const width = remove + 1;
  const cells: (Cell | undefined)[] = Array.from({ length: (depth + 2) * (most + 1) * width });
  const at = (p: number, q: number, r: number): number => (p * (most + 1) + q) * width + r;
  cells[at(0, 0, 0)] = { cost: 0, run: 0 };
  for (let p = 0; p <= depth; p++) {
    for (let q = 0; q <= most; q++) {
      for (let r = 0; r <= remove; r++) {
        const cell = cells[at(p, q, r)];
        if (cell === undefined) continue;
        for (let run = 0; run <= remove - r && p + run <= depth; run++) {
          if (run > 0 && (q === most || (keepLast && p + run === depth))) break;
          const cost = cell.cost + (run === 0 ? 0 : 1 - similarity[p]![p + run]!);
          const next = at(p + run + 1, run === 0 ? q : q + 1, r + run);
          // strictly less: what was reached with the shorter run, further left, stays
          if (cells[next] === undefined || cost < cells[next].cost) cells[next] = { cost, run };
        }
      }
    }
  }

  let [p, q, r] = [depth + 1, -1, remove];
  for (let i = 0; i <= most; i++) if (cells[at(p, i, remove)] !== undefined && (q < 0 || cells[at(p, i, remove)]!.cost < cells[at(p, q, remove)]!.cost)) q = i;
  if (q < 0) throw new ArgumentError('layers to keep', count, `a count that can be reached in ${most} run${most === 1 ? '' : 's'}${keepLast ? ' without the last block' : ''}`);
  const cost = cells[at(p, q, r)]!.cost;
  const removed: Interval[] = [];
  while (p > 0) {
    const { run } = cells[at(p, q, r)]!;
    p -= run + 1;
    r -= run;
    if (run > 0) {
      q -= 1;
      removed.unshift([p, p + run]);
    }
  }
  const gone = new Set(removed.flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i)));
  return { kept: Array.from({ length: depth }, (_, i) => i).filter((i) => !gone.has(i)), removed, cost };
}

import { ArgumentError, type Rng } from '@tinyfusion/core';

/** A mask and the loss with it; plain JSON. */
export interface MaskLoss {
  /** Blocks that were there, ascending. */
  readonly kept: readonly number[];
  readonly loss: number;
}

/** The losses of a study in numbers, as the paper's figure 5 gives them. */
export interface MaskSummary {
  count: number;
  min: MaskLoss;
  median: MaskLoss;
  max: MaskLoss;
  mean: number;
  /** Standard deviation over all of them. */
  deviation: number;
}

/** @throws ArgumentError where there is no mask */
export function summariseMasks(masks: readonly MaskLoss[]): MaskSummary {
  const ranked = byRank(masks);
  const count = ranked.length;
  const mean = ranked.reduce((sum, { loss }) => sum + loss, 0) / count;
  const deviation = Math.sqrt(ranked.reduce((sum, { loss }) => sum + (loss - mean) ** 2, 0) / count);
  return { count, min: ranked[0]!, median: ranked[(count - 1) >> 1]!, max: ranked[count - 1]!, mean, deviation };
}

/**
 * `count` masks spread over the range of losses: one at random out of each of `count` equal parts of the ranking, from the
 * smallest loss. What the study of recoverability against calibration loss trains on.
 * @throws ArgumentError where there are fewer masks
 */
export function stratified(masks: readonly MaskLoss[], count: number, rng: Rng): MaskLoss[] {
  if (!Number.isInteger(count) || count < 1 || count > masks.length) throw new ArgumentError('stratified: count', count, `an integer from 1 to the ${masks.length} masks`);
  const ranked = byRank(masks);
  return Array.from(rng.uniform(count), (u, i) => {
    const from = Math.floor((i * ranked.length) / count);
    const to = Math.floor(((i + 1) * ranked.length) / count);
    return ranked[from + Math.floor(u * (to - from))]!;
  });
}

function byRank(masks: readonly MaskLoss[]): MaskLoss[] {
  if (masks.length === 0) throw new ArgumentError('masks', 0, 'at least one');
  return masks.toSorted((a, b) => a.loss - b.loss || a.kept.join().localeCompare(b.kept.join()));
}

import { ArgumentError } from '@tinyfusion/core';
import { checkFinite } from './statistics.js';

/** An Inception Score over splits. */
export interface InceptionScore {
  mean: number;
  /** Standard deviation over the splits, dividing by their number. */
  std: number;
  splits: number;
}

/** Options of {@link inceptionScore}. */
export interface InceptionScoreOptions {
  /** Number of classes, the length of a row. */
  classes: number;
  /** Number of equal parts. Default 10, as torch-fidelity; ADM takes one for every 5,000 images. */
  splits?: number;
  /** Order in which rows are dealt to the splits. Default: as they come (ADM); torch-fidelity shuffles. */
  order?: ArrayLike<number>;
}

/**
 * exp of the mean KL divergence of p(y|x) from p(y) (Salimans et al. 2016).
 * @param logits rows of `classes` values before the softmax
 */
export function inceptionScore(logits: ArrayLike<number>, { classes, splits = 10, order }: InceptionScoreOptions): InceptionScore {
  const count = logits.length / classes;
  if (!Number.isInteger(count) || count < 1) throw new ArgumentError('inceptionScore: logits', logits.length, `a multiple of the ${classes} classes`);
  if (!Number.isInteger(splits) || splits < 1 || splits > count) throw new ArgumentError('InceptionScoreOptions.splits', splits, `an integer from 1 to the ${count} images`);
  checkFinite('inceptionScore: logits', logits, classes);
  const scores: number[] = [];
  for (let split = 0; split < splits; split++) {
    const [from, to] = [Math.floor((split * count) / splits), Math.floor(((split + 1) * count) / splits)];
    const rows: Float64Array[] = [];
    for (let i = from; i < to; i++) rows.push(softmax(logits, (order?.[i] ?? i) * classes, classes));
    const marginal = new Float64Array(classes);
    for (const p of rows) for (let c = 0; c < classes; c++) marginal[c]! += p[c]! / rows.length;
    let divergence = 0;
    for (const p of rows) for (let c = 0; c < classes; c++) if (p[c]! > 0) divergence += (p[c]! * (Math.log(p[c]!) - Math.log(marginal[c]!))) / rows.length;
    scores.push(Math.exp(divergence));
  }
  const mean = scores.reduce((a, b) => a + b, 0) / splits;
  return { mean, std: Math.sqrt(scores.reduce((sum, s) => sum + (s - mean) ** 2, 0) / splits), splits };
}

function softmax(logits: ArrayLike<number>, at: number, classes: number): Float64Array {
  const out = new Float64Array(classes);
  let most = -Infinity;
  for (let c = 0; c < classes; c++) most = Math.max(most, logits[at + c]!);
  let total = 0;
  for (let c = 0; c < classes; c++) total += out[c] = Math.exp(logits[at + c]! - most);
  return out.map((v) => v / total);
}

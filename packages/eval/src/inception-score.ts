import { ArgumentError } from '@tinyfusion/core';
import { rowsOf } from './statistics.js';

/** An Inception Score over splits; plain JSON. */
export interface InceptionScore {
  /** From 1 to the number of classes. */
  mean: number;
  /** Standard deviation over the splits, dividing by their number. */
  std: number;
  splits: number;
}

/** Options of {@link inceptionScore}. */
export interface InceptionScoreOptions {
  /** Number of classes, the length of a row. */
  classes: number;
  /** What a row holds. Default `'logits'`, values before the softmax. */
  rows?: 'logits' | 'probabilities';
  /** Number of equal parts. Default 10, as torch-fidelity. */
  splits?: number;
  /** In place of `splits`: images of a part, the last one taking what is left, as ADM's evaluator does with 5,000. */
  splitSize?: number;
  /** Order in which rows are dealt to the splits. Default: as they come (ADM); torch-fidelity shuffles. */
  order?: ArrayLike<number>;
}

/**
 * exp of the mean KL divergence of p(y|x) from p(y) (Salimans et al. 2016), in float64.
 *
 * @param predictions rows of `classes` logits or probabilities
 * @throws ArgumentError for values that are not finite or no probabilities, and for splits that do not fit
 */
export function inceptionScore(predictions: ArrayLike<number>, { classes, rows = 'logits', splits, splitSize, order }: InceptionScoreOptions): InceptionScore {
  const count = rowsOf(`inceptionScore: ${rows}`, predictions, classes);
  if (count < 1) throw new ArgumentError(`inceptionScore: ${rows}`, count, 'at least one row');
  if (order !== undefined) checkOrder(order, count);
  const bounds = partsOf(count, splits, splitSize);
  const scores = bounds.slice(1).map((to, split) => {
    const from = bounds[split]!;
    const marginal = new Float64Array(classes);
    let negativeEntropy = 0;
    for (let i = from; i < to; i++) {
      const row = order?.[i] ?? i;
      const p = rows === 'logits' ? softmax(predictions, row * classes, classes) : probabilities(predictions, row, classes);
      for (let c = 0; c < classes; c++) {
        marginal[c]! += p[c]! / (to - from);
        negativeEntropy += xLogX(p[c]!) / (to - from);
      }
    }
    return Math.exp(negativeEntropy - marginal.reduce((sum, p) => sum + xLogX(p), 0)); // mean KL = H(y) − H(y|x)
  });
  const mean = scores.reduce((a, b) => a + b, 0) / scores.length;
  return { mean, std: Math.sqrt(scores.reduce((sum, s) => sum + (s - mean) ** 2, 0) / scores.length), splits: scores.length };
}

/** Where parts begin, and the end. */
function partsOf(count: number, splits: number | undefined, splitSize: number | undefined): number[] {
  if (splitSize !== undefined) {
    if (splits !== undefined) throw new ArgumentError('InceptionScoreOptions.splits', splits, 'nothing where splitSize is given');
    if (!Number.isInteger(splitSize) || splitSize < 1) throw new ArgumentError('InceptionScoreOptions.splitSize', splitSize, 'a positive integer');
    return [...Array.from({ length: Math.ceil(count / splitSize) }, (_, i) => i * splitSize), count];
  }
  const parts = splits ?? 10;
  if (!Number.isInteger(parts) || parts < 1 || parts > count) throw new ArgumentError('InceptionScoreOptions.splits', parts, `an integer from 1 to the ${count} images`);
  return Array.from({ length: parts + 1 }, (_, i) => Math.floor((i * count) / parts));
}

function checkOrder(order: ArrayLike<number>, count: number): void {
  if (order.length !== count) throw new ArgumentError('InceptionScoreOptions.order: length', order.length, `${count}, one place for each row`);
  const seen = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const row = order[i]!;
    if (!(row in seen) || seen[row] === 1) throw new ArgumentError(`InceptionScoreOptions.order, place ${i}`, row, `each of 0 to ${count - 1} once`);
    seen[row] = 1;
  }
}

function softmax(logits: ArrayLike<number>, at: number, classes: number): Float64Array {
  const out = new Float64Array(classes);
  let most = -Infinity;
  for (let c = 0; c < classes; c++) most = Math.max(most, logits[at + c]!);
  let total = 0;
  for (let c = 0; c < classes; c++) total += out[c] = Math.exp(logits[at + c]! - most);
  for (let c = 0; c < classes; c++) out[c]! /= total;
  return out;
}

function probabilities(values: ArrayLike<number>, row: number, classes: number): Float64Array {
  const out = Float64Array.from({ length: classes }, (_, c) => values[row * classes + c]!);
  const total = out.reduce((a, b) => a + b, 0);
  if (Math.abs(total - 1) > 1e-3 || out.some((p) => p < 0)) throw new ArgumentError(`inceptionScore: sum of the probabilities of row ${row}`, total, "1 with none below 0; pass rows: 'logits' for values before the softmax");
  return out;
}

function xLogX(p: number): number {
  return p > 0 ? p * Math.log(p) : 0;
}

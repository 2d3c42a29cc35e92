import { ArgumentError, type Rng } from '@tinyfusion/core';

/**
 * Layers to keep, by index.
 * @returns ascending
 * @throws ArgumentError where an index is not in the model or there twice
 */
export function byIndex(depth: number, kept: readonly number[]): number[] {
  if (kept.length === 0) throw new ArgumentError('kept layers', kept, 'at least one');
  for (const [i, layer] of kept.entries()) {
    if (!Number.isInteger(layer) || layer < 0 || layer >= depth) throw new ArgumentError('kept layers', layer, `indices from 0 to ${depth - 1}`);
    if (kept.indexOf(layer) !== i) throw new ArgumentError('kept layers', kept, 'each layer once');
  }
  return kept.toSorted((a, b) => a - b);
}

/** `count` of `depth` layers, uniformly at random. @returns ascending */
export function atRandom(depth: number, count: number, rng: Rng): number[] {
  checkCount(depth, count);
  return byIndex(depth, Array.from(rng.permutation(depth).subarray(0, count)));
}

/**
 * The choice that the paper calls Oracle, BK-SDM's for a transformer (Kim et al. 2023): the first half of the layers is
 * the encoder, the second the decoder; neighbours form `count` groups, of which the encoder's keep their first layer and the
 * decoder's their last. 14 of 28 are 0, 2, …, 12 and 15, 17, …, 27, as in the reference's README since its correction.
 * @returns ascending; a group across the middle keeps its first layer where no more of it lies in the decoder
 */
export function oracle(depth: number, count: number): number[] {
  return groupsOf(depth, count).map(([start, end]) => (start + end <= depth ? start : end - 1));
}

/** The first layer of each of `count` groups of neighbours: for half the depth 0, 2, 4, … @returns ascending */
export function firstOfEach(depth: number, count: number): number[] {
  return groupsOf(depth, count).map(([start]) => start);
}

/** Neighbours in `count` groups, as equal as can be: first layer, and the one after the last. */
function groupsOf(depth: number, count: number): [start: number, end: number][] {
  checkCount(depth, count);
  const bound = (i: number): number => Math.floor((i * depth) / count);
  return Array.from({ length: count }, (_, i) => [bound(i), bound(i + 1)]);
}

/** The first `count` layers. */
export function firstLayers(depth: number, count: number): number[] {
  checkCount(depth, count);
  return Array.from({ length: count }, (_, i) => i);
}

/** The last `count` layers. */
export function lastLayers(depth: number, count: number): number[] {
  checkCount(depth, count);
  return Array.from({ length: count }, (_, i) => depth - count + i);
}

/** `count` layers evenly spread, the first and the last among them where there are two or more. */
export function uniformLayers(depth: number, count: number): number[] {
  checkCount(depth, count);
  return Array.from({ length: count }, (_, i) => (count === 1 ? 0 : Math.round((i * (depth - 1)) / (count - 1))));
}

/**
 * Keeps the layers whose removal scores worst.
 * @param scores redundancy of each layer: the highest are removed
 * @param options `keepLast`: whether the last layer is never removed. Default `true`, as in the reference's ShortGPT
 * @throws ArgumentError where a score is NaN
 */
export function leastRedundant(scores: readonly number[], count: number, { keepLast = true }: { keepLast?: boolean } = {}): number[] {
  const depth = scores.length;
  checkCount(depth, count);
  for (const [layer, score] of scores.entries()) if (Number.isNaN(score)) throw new ArgumentError(`leastRedundant: score of layer ${layer}`, score, 'a number; the model may hold values that are none');
  const candidates = scores.map((score, layer) => ({ score, layer })).filter(({ layer }) => !(keepLast && layer === depth - 1));
  // the first of equal scores goes first
  const removed = new Set(candidates.toSorted((a, b) => b.score - a.score || a.layer - b.layer).slice(0, depth - count).map(({ layer }) => layer));
  return Array.from({ length: depth }, (_, layer) => layer).filter((layer) => !removed.has(layer));
}

function checkCount(depth: number, count: number): void {
  if (!Number.isInteger(count) || count < 1 || count > depth) throw new ArgumentError('layers to keep', count, `an integer from 1 to the model's ${depth}`);
}

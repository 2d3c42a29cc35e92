import { ArgumentError, type Rng } from '@tinyfusion/core';

/** More masks than this in a list are not made. */
const MOST_MASKS = 2_000_000;

/** Number of ways to keep `count` of `depth` blocks. */
export function maskCount(depth: number, count: number): number {
  if (!Number.isInteger(depth) || !Number.isInteger(count) || count < 1 || count > depth) throw new ArgumentError('layers to keep', count, `an integer from 1 to the model's ${depth}`);
  let result = 1;
  for (let i = 1; i <= count; i++) result = Math.round((result * (depth - count + i)) / i);
  return result;
}

/**
 * Every way to keep `count` of `depth` blocks, in lexicographic order: 924 for half of 12.
 * @throws ArgumentError where they are more than two million; C(28, 14) = 40,116,600 are to be sampled
 */
export function allMasks(depth: number, count: number): number[][] {
  const total = maskCount(depth, count);
  if (total > MOST_MASKS) throw new ArgumentError(`masks of ${count} out of ${depth} blocks`, total, `at most ${MOST_MASKS} to list; draw some with randomMasks`);
  const masks: number[][] = [];
  const extend = (mask: readonly number[], from: number): void => {
    if (mask.length === count) masks.push([...mask]);
    else for (let next = from; next <= depth - count + mask.length; next++) extend([...mask, next], next + 1);
  };
  extend([], 0);
  return masks;
}

/**
 * `many` different masks that keep `count` of `depth` blocks, uniformly at random; the paper's figure 5 has 100,000 of
 * half of 28 blocks.
 * @throws ArgumentError where there are not that many
 */
export function randomMasks(depth: number, count: number, many: number, rng: Rng): number[][] {
  const total = maskCount(depth, count);
  if (!Number.isInteger(many) || many < 1 || many > total) throw new ArgumentError('number of masks', many, `an integer from 1 to the ${total} there are`);
  // where most are wanted, drawing until they differ would not end
  if (2 * many >= total) {
    const all = allMasks(depth, count);
    return Array.from(rng.permutation(all.length).subarray(0, many), (i) => all[i]!);
  }
  const seen = new Map<string, number[]>();
  while (seen.size < many) {
    const mask = Array.from(rng.permutation(depth).subarray(0, count)).toSorted((a, b) => a - b);
    seen.set(mask.join(), mask);
  }
  return [...seen.values()];
}

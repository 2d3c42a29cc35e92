import { ArgumentError } from '@tinyfusion/core';

/** A student's block and the teacher's block whose output it should reproduce. */
export type LayerPair = readonly [student: number, teacher: number];

/**
 * Pairs the last kept block of each N:M group with the last block of the group, so that a group as a whole does what it
 * did. For 1:2 this is the reference's i → 2i + 1, for its hybrid 19-layer model its lists (paper, section 4.3).
 */
export function layerMapOfGroups(groups: readonly { readonly kept: number; readonly size: number }[]): LayerPair[] {
  let [student, teacher] = [0, 0];
  return groups.map(({ kept, size }) => {
    student += kept;
    teacher += size;
    return [student - 1, teacher - 1] as const;
  });
}

/**
 * Pairs every block of a student with the teacher's at the same relative depth: i → ⌊(i + 1)·depth/count⌋ − 1. Needs no
 * groups, so that models cut in different ways are recovered alike.
 */
export function evenLayerMap(depth: number, count: number): LayerPair[] {
  if (!Number.isInteger(count) || count < 1 || count > depth) throw new ArgumentError('evenLayerMap: count', count, `an integer from 1 to ${depth}`);
  return Array.from({ length: count }, (_, i) => [i, Math.floor(((i + 1) * depth) / count) - 1] as const);
}

/** Weight of the feature loss, from `from` at the first step straight to 0 at the last. The paper's start: 0.01. */
export function decayingWeight(from: number, step: number, steps: number): number {
  return from * (1 - step / Math.max(1, steps - 1));
}

import { ArgumentError } from '@tinyfusion/core';

/** A student's block and the teacher's block whose output it should reproduce. */
export type LayerPair = readonly [student: number, teacher: number];

/**
 * Pairs the last kept block of each N:M group with the last block of the group, so that a group as a whole does what it
 * did. For 1:2 this is the reference's i → 2i + 1, for its hybrid 19-layer model its lists (paper, section 4.3). The
 * last block before a group that keeps nothing follows that group too.
 * @throws ArgumentError where a group keeps more than it has, or the first one nothing
 */
export function layerMapOfGroups(groups: readonly { readonly kept: number; readonly size: number }[]): LayerPair[] {
  if (groups.length === 0) throw new ArgumentError('layerMapOfGroups: groups', groups, 'one at least');
  let [student, teacher] = [0, 0];
  return groups.map(({ kept, size }, i) => {
    if (!Number.isInteger(kept) || !Number.isInteger(size) || kept > size || kept < (i === 0 ? 1 : 0)) throw new ArgumentError(`layerMapOfGroups: group ${i}`, { kept, size }, `${i === 0 ? 'from 1' : 'from 0'} to its size of layers kept`);
    student += kept;
    teacher += size;
    return [student - 1, teacher - 1] as const;
  });
}

/**
 * Pairs every block of a student with the teacher's at the same relative depth: i → ⌊(i + 1)·depth/count⌋ − 1. Needs no
 * groups, so that models cut in different ways are recovered alike.
 * @throws ArgumentError where the student has more blocks than the teacher
 */
export function evenLayerMap(depth: number, count: number): LayerPair[] {
  if (!Number.isInteger(depth) || depth < 1) throw new ArgumentError('evenLayerMap: depth', depth, 'a positive integer');
  if (!Number.isInteger(count) || count < 1 || count > depth) throw new ArgumentError('evenLayerMap: count', count, `an integer from 1 to ${depth}`);
  return Array.from({ length: count }, (_, i) => [i, Math.floor(((i + 1) * depth) / count) - 1] as const);
}

/**
 * Pairs every kept block with the last of the removed blocks that follow it, whose work it takes over; the first kept one
 * has those before it too. Where the choice was made in groups, {@link layerMapOfGroups} is the paper's map.
 *
 * @param kept ascending indices of the teacher's blocks
 */
export function layerMapOfChoice(kept: readonly number[], depth: number): LayerPair[] {
  if (kept.length === 0 || !kept.every((layer, i) => Number.isInteger(layer) && layer >= 0 && layer < depth && (i === 0 || layer > kept[i - 1]!))) throw new ArgumentError('layerMapOfChoice: kept', kept, `ascending indices from 0 to ${depth - 1}`);
  return kept.map((_, i) => [i, (kept[i + 1] ?? depth) - 1] as const);
}

/**
 * The map of a student of a student: pairs of `first` (student to middle) that `second` (middle to teacher) goes on from.
 * @throws ArgumentError where no pair goes through
 */
export function composeMaps(first: readonly LayerPair[], second: readonly LayerPair[]): LayerPair[] {
  const onward = new Map(second);
  const through = first.flatMap(([student, middle]) => (onward.has(middle) ? [[student, onward.get(middle)!] as const] : []));
  if (through.length === 0) throw new ArgumentError('composeMaps: maps', [first, second], 'maps that share a block of the model in the middle');
  return through;
}

/** A step of a chain of teachers: a model of `from` layers becomes one of `to`, which is recovered with the map. */
export interface ChainStage {
  from: number;
  to: number;
  map: LayerPair[];
}

/**
 * Stages of cutting a model more than once, each taught by the one before: the paper's quarter-depth model came by way of
 * the half-depth one (28 → 14 → 7), and is better for it (table 7).
 *
 * @param depths e.g. `[28, 14, 7]`
 */
export function teacherChain(depths: readonly number[]): ChainStage[] {
  if (depths.length < 2 || !depths.every((d, i) => Number.isInteger(d) && d >= 1 && (i === 0 || d < depths[i - 1]!))) throw new ArgumentError('teacherChain: depths', depths, 'two or more falling depths, e.g. [28, 14, 7]');
  return depths.slice(1).map((to, i) => ({ from: depths[i]!, to, map: evenLayerMap(depths[i]!, to) }));
}

/** How the feature loss fades: straight, along half a cosine, or not at all. */
export type FeatureDecay = 'linear' | 'cosine' | 'constant';

/**
 * Weight of the feature loss at a step, by default from `from` straight to 0 at the last step, and 0 after it (a single
 * step has `from`). The paper's start: 0.01, for SiT 2e-4.
 *
 * @param step from 0
 * @param options `warmUp`: steps over which it first rises from 0. Default 0
 */
export function decayingWeight(from: number, step: number, steps: number, { decay = 'linear', warmUp = 0 }: { decay?: FeatureDecay; warmUp?: number } = {}): number {
  if (!(from >= 0 && from < Infinity)) throw new ArgumentError('decayingWeight: from', from, 'a finite number from 0');
  if (!(step >= 0)) throw new ArgumentError('decayingWeight: step', step, 'a number from 0');
  if (!(steps > 0)) throw new ArgumentError('decayingWeight: steps', steps, 'a number above 0');
  if (!(warmUp >= 0)) throw new ArgumentError('decayingWeight: warmUp', warmUp, 'a number of steps from 0');
  return from * shareLeft(decay, Math.min(1, step / Math.max(1, steps - 1))) * (warmUp > 0 ? Math.min(1, (step + 1) / warmUp) : 1);
}

/** How much is left when a share of the run is done. */
function shareLeft(decay: FeatureDecay, done: number): number {
  switch (decay) {
    case 'linear':
      return 1 - done;
    case 'cosine':
      return (1 + Math.cos(Math.PI * done)) / 2;
    case 'constant':
      return 1;
    default:
      throw new ArgumentError('decay', decay, "'linear', 'cosine' or 'constant'");
  }
}

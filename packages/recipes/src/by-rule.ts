import { ArgumentError, type Rng, createRng } from '@tinyfusion/core';
import { atRandom, firstLayers, lastLayers, oracle, uniformLayers } from '@tinyfusion/pruning';
import type { Prunable } from './objective.js';
import { depthOf, stacksOf } from './stacks.js';

/** Choices of `count` of `depth` layers that look at nothing but these numbers. */
export const rules = {
  oracle: (depth: number, count: number): number[] => oracle(depth, count),
  uniform: (depth: number, count: number): number[] => uniformLayers(depth, count),
  first: (depth: number, count: number): number[] => firstLayers(depth, count),
  last: (depth: number, count: number): number[] => lastLayers(depth, count),
  random: (depth: number, count: number, rng: Rng): number[] => atRandom(depth, count, rng),
} as const;

/** A choice by the number of layers alone. */
export type Rule = keyof typeof rules;

/** Whether a name is a rule's. */
export const isRule = (name: string): name is Rule => Object.hasOwn(rules, name);

/** Options of {@link chooseByRule}. */
export interface RuleOptions {
  /** Layers to keep of all stacks. */
  count: number;
  /** Of `'random'`. */
  seed: number;
}

/**
 * Layers to keep by a rule, counted over all stacks. Each stack keeps its share, one layer at least; the oracle alone sees
 * one row of layers, whose first half it takes for the encoder, as a MAR's is.
 * @throws ArgumentError where there are fewer layers to keep than stacks, or more than there are
 */
export function chooseByRule(model: Prunable, rule: Rule, { count, seed }: RuleOptions): number[] {
  const [stacks, depth] = [stacksOf(model), depthOf(model)];
  if (!Number.isInteger(count) || count < stacks.length || count > depth) throw new ArgumentError('count', count, `a number of layers from ${stacks.length === 1 ? '1' : `${stacks.length}, one of each stack,`} to the model's ${depth}`);
  const row = rule === 'oracle' ? oracle(depth, count) : [];
  if (stacks.every(({ start, depth: own }) => row.some((layer) => layer >= start && layer < start + own))) return row;
  const rng = createRng(seed);
  let [left, layersLeft] = [count, depth];
  return stacks.flatMap(({ start, depth: own }, i) => {
    const [least, most] = [Math.max(1, left - (layersLeft - own)), Math.min(own, left - (stacks.length - 1 - i))];
    const share = Math.min(most, Math.max(least, Math.round((left * own) / layersLeft)));
    left -= share;
    layersLeft -= own;
    return rules[rule](own, share, rng).map((layer) => start + layer);
  });
}

import { ArgumentError, type ProgressEvent, createRng } from '@tinyfusion/core';
import { atRandom, firstLayers, oracle, uniformLayers } from '@tinyfusion/pruning';
import { chooseByBlockError, chooseByBlockInfluence, chooseByCka, chooseBySensitivity, chooseByTaylor, depthOf, stacksOf } from '@tinyfusion/recipes';
import type { Choice } from '../protocol';
import type { Context } from './server';
import { session } from './session';

/** Criteria of the pruning package by their name on the page. */
const measured = {
  'block influence': chooseByBlockInfluence,
  'block error': chooseByBlockError,
  sensitivity: chooseBySensitivity,
  taylor: chooseByTaylor,
  'CKA intervals': chooseByCka,
} as const;

const blind: Readonly<Record<string, (depth: number, count: number, seed: number) => number[]>> = {
  oracle,
  uniform: uniformLayers,
  first: firstLayers,
  random: (depth, count, seed) => atRandom(depth, count, createRng(seed)),
};

/** Blocks to keep by one of the other criteria. */
export async function choose({ criterion, count, seed }: { criterion: string; count: number; seed: number }, { signal, emit }: Context<ProgressEvent>): Promise<Choice> {
  const { model } = session.teacher;
  if (Object.hasOwn(blind, criterion)) {
    // each stack keeps its share, one block at least
    const kept = stacksOf(model).flatMap(({ start, depth }) => blind[criterion]!(depth, Math.max(1, Math.round((count * depth) / depthOf(model))), seed).map((i) => start + i));
    return { kept, criterion };
  }
  if (!Object.hasOwn(measured, criterion)) throw new ArgumentError('criterion', criterion, `one of ${[...Object.keys(measured), ...Object.keys(blind)].join(', ')}`);
  const { kept } = await measured[criterion as keyof typeof measured](model, await session.data({ signal, onProgress: emit }), { count, images: criterion === 'taylor' ? 32 : 64, seed, signal, onProgress: emit });
  return { kept, criterion };
}

import { ArgumentError, type ProgressEvent } from '@tinyfusion/core';
import { chooseByBlockError, chooseByBlockInfluence, chooseByCka, chooseByRule, chooseBySensitivity, chooseByTaylor, isRule, rules } from '@tinyfusion/recipes';
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

/** Blocks to keep by one of the other criteria. */
export async function choose({ criterion, count, seed }: { criterion: string; count: number; seed: number }, { signal, emit }: Context<ProgressEvent>): Promise<Choice> {
  const { model } = session.teacher;
  if (isRule(criterion)) return { kept: chooseByRule(model, criterion, { count, seed }), criterion, ...(criterion === 'random' ? { seed } : {}) };
  if (!Object.hasOwn(measured, criterion)) throw new ArgumentError('criterion', criterion, `one of ${[...Object.keys(measured), ...Object.keys(rules)].join(', ')}`);
  const { kept } = await measured[criterion as keyof typeof measured](model, await session.data({ signal, onProgress: emit }), { count, images: criterion === 'taylor' ? 32 : 64, seed, signal, onProgress: emit });
  return { kept, criterion, seed };
}

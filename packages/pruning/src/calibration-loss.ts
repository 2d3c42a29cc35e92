import { ArgumentError } from '@tinyfusion/core';
import type { BlockHook } from '@tinyfusion/nn';
import { byIndex } from './choices.js';
import { maskHook } from './mask-hook.js';

/**
 * The loss of a model with only `kept` blocks, before any recovery and without surgery: the quantity of the paper's
 * table 3, which does not say how well a choice recovers.
 *
 * @param loss of the model under a hook; the same data and noise for all masks that are compared
 * @throws ArgumentError where the mask does not fit, or the loss is not finite
 */
export async function calibrationLoss(depth: number, kept: readonly number[], loss: (hook: BlockHook) => number | Promise<number>): Promise<number> {
  const value = await loss(maskHook(byIndex(depth, kept), depth));
  if (!Number.isFinite(value)) throw new ArgumentError(`calibration loss with blocks ${kept.join(',')}`, value, 'a finite number');
  return value;
}

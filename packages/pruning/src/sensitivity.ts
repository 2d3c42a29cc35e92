import { ArgumentError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import type { BlockHook } from '@tinyfusion/nn';
import { maskHook } from './mask-hook.js';

/**
 * What leaving out each block alone does to a loss: the sensitivity criterion of the paper's table 3. Blocks that are left
 * out are not computed.
 *
 * @param depth number of blocks
 * @param loss of the model under a hook; the same data and noise every time, or the differences are those of the draws
 * @returns the loss without block 0, 1, …; `leastRedundant` takes it with its sign turned
 */
export async function sensitivities(depth: number, loss: (hook: BlockHook) => Promise<number>, { signal, onProgress }: LongTaskOptions = {}): Promise<number[]> {
  if (!Number.isInteger(depth) || depth < 1) throw new ArgumentError('sensitivities: depth', depth, 'a positive integer');
  const losses: number[] = [];
  for (let left = 0; left < depth; left++) {
    throwIfCancelled(signal, 'sensitivity');
    const value = await loss(maskHook(Array.from({ length: depth }, (_, i) => i).filter((i) => i !== left), depth));
    if (!Number.isFinite(value)) throw new ArgumentError(`sensitivities: loss without block ${left}`, value, 'a finite number');
    losses.push(value);
    onProgress?.({ task: 'sensitivity', step: left + 1, total: depth, unit: 'block' });
  }
  return losses;
}

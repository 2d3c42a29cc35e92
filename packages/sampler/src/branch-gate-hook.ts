import { ArgumentError } from '@tinyfusion/core';
import type { BlockHook } from '@tinyfusion/nn';
import type * as tf from '@tensorflow/tfjs-core';
import { gatedResidual } from './gated-residual.js';
import { unitOf } from './unit.js';

/**
 * Applies masks to the branches of a stack of blocks, as `branchHook`: x ← branch(x) · m + x · (1 − m) for each sample,
 * where branch(x) has the residual in it. Every branch is computed; {@link skippingHook} is the one that leaves them out.
 *
 * @param masks two a block, attention and MLP, `[N]`; borrowed while the hook is in use
 * @throws ArgumentError in use, as `hook` instead of `branchHook`, or where the stack has another depth
 */
export function branchGateHook(masks: readonly tf.Tensor1D[]): BlockHook {
  return (site, x, run) => {
    if (site.branch === undefined) throw new ArgumentError('branchGateHook', 'used around whole blocks', 'to be given as branchHook, not as hook');
    return gatedResidual(x, run(x), masks[unitOf('branchGateHook: masks', site, masks.length)]!);
  };
}

import { gatedResidual } from './gated-residual.js';
import type { BlockHook } from '@tinyfusion/nn';
import { ArgumentError } from '@tinyfusion/core';
import type * as tf from '@tensorflow/tfjs-core';

/**
 * Applies masks to a stack of blocks: x ← block(x) · m + x · (1 − m) for each sample. Every block is computed.
 * @param masks one a block, `[N]`; borrowed while the hook is in use
 */
export function gateHook(masks: readonly tf.Tensor1D[]): BlockHook {
  return (site, x, run) => {
    if (site.depth !== masks.length) throw new ArgumentError('gateHook: masks', masks.length, `one for each of the ${site.depth} blocks`);
    return gatedResidual(x, run(x), masks[site.index]!);
  };
}

import { ArgumentError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { byIndex } from './choices.js';
import type { MaskLoss } from './mask-losses.js';
import { HookRunner, type HookedModel, type ResidualStack, StackRunner } from './residual-stack.js';

/** Milliseconds after which a study lets others run. */
const BREATH = 50;

/**
 * The calibration losses of many masks: of all (`allMasks`), or of some (`randomMasks`, the paper's figure 5). Nothing is
 * cut, and dropped blocks are not computed. Masks are visited in lexicographic order, as a walk through the tree of their
 * kept blocks, so that the hidden state after the blocks that two masks have in common is computed once: all 924 halves of
 * 12 blocks take 1,715 blocks in place of 5,544.
 *
 * @param masks kept blocks of each
 * @param model on fixed data; a list of stacks (one a batch) gives the mean of their losses
 * @returns in the order of the masks; plain JSON
 * @throws ArgumentError where a mask does not fit the model, or a loss is not finite; CancelledError
 */
export async function maskLosses(masks: readonly (readonly number[])[], model: ResidualStack | HookedModel | readonly ResidualStack[], { signal, onProgress }: LongTaskOptions = {}): Promise<MaskLoss[]> {
  const models: (ResidualStack | HookedModel)[] = isList(model) ? [...model] : [model];
  if (models.length === 0) throw new ArgumentError('maskLosses: stacks', 0, 'at least one');
  if (masks.length === 0) throw new ArgumentError('maskLosses: masks', 0, 'at least one');
  const runners = models.map((one) => ('block' in one ? new StackRunner(one) : new HookRunner(one)));
  const [depth, other] = [runners[0]!.depth, runners.find((runner) => runner.depth !== runners[0]!.depth)];
  if (other !== undefined) throw new ArgumentError('maskLosses: depth of a stack', other.depth, `${depth}, as the first has`);
  const kept = masks.map((mask) => byIndex(depth, mask));
  const order = kept.map((_, i) => i).toSorted((a, b) => compare(kept[a]!, kept[b]!));
  const sums = new Float64Array(masks.length);
  let last = performance.now();
  for (const [batch, runner] of runners.entries()) {
    try {
      let loss = 0;
      for (const [at, i] of order.entries()) {
        throwIfCancelled(signal, 'mask study');
        const mask = kept[i]!;
        const shared = at === 0 ? 0 : common(kept[order[at - 1]!]!, mask);
        const next = at + 1 < order.length ? common(mask, kept[order[at + 1]!]!) : 0;
        // the same mask again has the same loss, and its states are still there
        if (at === 0 || compare(kept[order[at - 1]!]!, mask) !== 0) loss = await runner.run(mask, shared, next);
        if (!Number.isFinite(loss)) throw new ArgumentError(`calibration loss with blocks ${mask.join(',')}`, loss, 'a finite number');
        sums[i]! += loss / runners.length;
        onProgress?.({ task: 'mask study', step: batch * order.length + at + 1, total: runners.length * order.length, unit: 'mask', values: { loss } });
        if (performance.now() - last > BREATH) {
          await new Promise((resolve) => setTimeout(resolve));
          last = performance.now();
        }
      }
    } finally {
      runner.dispose();
    }
  }
  return kept.map((mask, i) => ({ kept: mask, loss: sums[i]! }));
}

function isList(model: ResidualStack | HookedModel | readonly ResidualStack[]): model is readonly ResidualStack[] {
  return Array.isArray(model);
}

/** Lexicographic; a mask comes before those that begin with it. */
function compare(a: readonly number[], b: readonly number[]): number {
  const at = common(a, b);
  return at === a.length || at === b.length ? a.length - b.length : a[at]! - b[at]!;
}

function common(a: readonly number[], b: readonly number[]): number {
  let at = 0;
  while (at < a.length && at < b.length && a[at] === b[at]) at++;
  return at;
}

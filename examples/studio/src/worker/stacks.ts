import { type BlockHook, hooksByStack } from '@tinyfusion/nn';
import { maskHook } from '@tinyfusion/pruning';
import { type Prunable, depthOf, keptByStack, stacksOf } from '@tinyfusion/recipes';

/** A hook that sees each block's index among those of all stacks. */
export function overStacks(model: Prunable, hook: BlockHook): BlockHook {
  const depth = depthOf(model);
  return hooksByStack(Object.fromEntries(stacksOf(model).map(({ name, start }): [string, BlockHook] => [name, (site, x, run) => hook({ ...site, index: start + site.index, depth }, x, run)])));
}

/** Runs a model as if only `kept` blocks were there; indices are those among all stacks. */
export function keeping(model: Prunable, kept: readonly number[]): BlockHook {
  return hooksByStack(Object.fromEntries(keptByStack(model, kept).map((stack) => [stack.name, maskHook(stack.kept)])));
}

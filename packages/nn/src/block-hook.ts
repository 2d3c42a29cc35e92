import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/** Where in a model a hook is called. */
export interface BlockSite {
  /** Field that holds the blocks, e.g. `'blocks'`. */
  readonly stack: string;
  /** Index of the block, from 0. */
  readonly index: number;
  /** Number of blocks in the stack. */
  readonly depth: number;
  /** The branch inside the block; absent where the hook is around the whole block. */
  readonly branch?: 'attention' | 'mlp';
}

/** Tokens in, tokens out; both `[N, T, D]`. Conditions are closed over. */
export type RunBlock = (x: tf.Tensor3D) => tf.Tensor3D;

/**
 * The one seam around every residual block. A hook gets the block's input and the block itself as `run`, which it may
 * call once, not at all (returning `x` skips the block), or inside a wrapper of its own. It borrows `x`; what it
 * returns goes to the next block. To hold on to a tensor beyond the call it keeps a clone.
 */
export type BlockHook = (site: BlockSite, x: tf.Tensor3D, run: RunBlock) => tf.Tensor3D;

/** What a block calls around each of its branches. */
export type BranchHook = (branch: 'attention' | 'mlp', x: tf.Tensor3D, run: RunBlock) => tf.Tensor3D;

/** Hooks that a model's forward pass accepts. */
export interface HookOptions {
  /** Called around each block. Default: none. */
  hook?: BlockHook | undefined;
  /** Called around each branch of each block, with `site.branch` set. Default: none. */
  branchHook?: BlockHook | undefined;
}

/** Runs a branch as it is. */
export const plainBranch: BranchHook = (_branch, x, run) => run(x);

/**
 * Runs a stack of residual blocks: `x ← block(x)` for each in order, through the hooks. Every block is a `tidy` of its
 * own and its input is freed as soon as it is used (saved copies for gradients live on), so that memory does not grow
 * with depth.
 *
 * @param stack name of the field that holds the blocks
 * @param x `[N, T, D]`, borrowed
 * @param forward runs one block; `around` is to be called around each of its branches
 * @returns `[N, T, D]`
 */
export function runBlocks<B>(
  stack: string,
  blocks: readonly B[],
  x: tf.Tensor3D,
  forward: (block: B, x: tf.Tensor3D, around: BranchHook) => tf.Tensor3D,
  { hook, branchHook }: HookOptions = {},
): tf.Tensor3D {
  const depth = blocks.length;
  let current = x;
  for (const [index, block] of blocks.entries()) {
    const site = { stack, index, depth };
    const around: BranchHook = branchHook === undefined ? plainBranch : (branch, input, run) => branchHook({ ...site, branch }, input, run);
    const run: RunBlock = (input) => tf.tidy(() => forward(block, input, around));
    const next = tf.tidy(() => (hook === undefined ? run(current) : hook(site, current, run)));
    if (next !== current && current !== x) current.dispose();
    current = next;
  }
  return current === x ? tf.clone(x) : current;
}

/** One hook out of several: the first is the outermost. `undefined` entries are left out. */
export function composeHooks(...hooks: readonly (BlockHook | undefined)[]): BlockHook {
  const present = hooks.filter((h) => h !== undefined);
  return (site, x, run) => present.reduceRight<RunBlock>((inner, hook) => (input) => hook(site, input, inner), run)(x);
}

/**
 * One hook for a model of several stacks: each stack has its own, and those without run as they are.
 * @param hooks by the stack's field, e.g. `{ encoder_blocks: …, decoder_blocks: … }`
 */
export function hooksByStack(hooks: Readonly<Record<string, BlockHook | undefined>>): BlockHook {
  return (site, x, run) => (Object.hasOwn(hooks, site.stack) && hooks[site.stack] !== undefined ? hooks[site.stack]!(site, x, run) : run(x));
}

/** A hook that keeps copies of what chosen blocks put out. */
export interface FeatureCapture {
  readonly hook: BlockHook;
  /**
   * The captured outputs by block index, each `[N, T, D]`, in the order of the blocks: those of the latest pass. They
   * belong to the caller, and the capture is empty again.
   */
  take(): Map<number, tf.Tensor3D>;
}

/** Options of {@link captureFeatures}. */
export interface CaptureFeaturesOptions {
  /** The stack whose blocks are meant, e.g. `'encoder_blocks'`. Default: the only one that the hook is called in. */
  stack?: string | undefined;
}

/**
 * Captures block outputs, as a PyTorch forward hook on `blocks[i]` does. Gradients flow through the captured tensors,
 * and they outlive every enclosing `tidy`. What another pass puts in the place of an output that nobody took is freed.
 *
 * @param indices blocks whose output is wanted
 * @returns the capture. Its hook throws ArgumentError where blocks of two stacks have the wanted indices and no stack was named
 */
export function captureFeatures(indices: readonly number[], { stack }: CaptureFeaturesOptions = {}): FeatureCapture {
  const wanted = new Set(indices);
  let captured = new Map<number, tf.Tensor3D>();
  let from = stack;
  return {
    hook: (site, x, run) => {
      const y = run(x);
      if (!wanted.has(site.index) || (stack !== undefined && site.stack !== stack)) return y;
      if (from !== undefined && from !== site.stack) throw new ArgumentError('captureFeatures: stack', stack, `the name of one stack: ${from} and ${site.stack} both have block ${site.index}`);
      from = site.stack;
      captured.get(site.index)?.dispose();
      captured.set(site.index, tf.keep(tf.clone(y)));
      return y;
    },
    take: () => {
      const taken = captured;
      captured = new Map();
      from = stack;
      return taken;
    },
  };
}

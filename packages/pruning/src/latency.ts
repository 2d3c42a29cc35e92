import { ArgumentError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import type { BlockHook, HookOptions, RunBlock } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { byIndex } from './choices.js';

/** What the blocks of a stack cost; plain JSON, and a budget's costs. */
export interface CostTable {
  /** Milliseconds, or multiples of the mean block. */
  unit: 'ms' | 'relative';
  /** One a block. */
  blocks: number[];
  /** One a block: its attention branch, and its MLP; the rest of a block (its condition) is in neither. */
  attention?: number[];
  mlp?: number[];
  /** The model without any block: embeddings, final layer, the way to the device and back. */
  rest: number;
}

/** Options of {@link measureBlocks}. */
export interface MeasureBlocksOptions extends LongTaskOptions {
  /** Measurements of which the median is taken. Default 5. */
  repeats?: number;
  /** Rounds before them that do not count. Default 1. */
  warmUp?: number;
  /** Times that a block is run in one forward pass, so that it stands out from the rest. Default 4. */
  copies?: number;
  /** Whether attention and MLP are measured too. Default `false`. */
  branches?: boolean;
  /** The clock, in milliseconds. Default `performance.now`. */
  now?: () => number;
}

/**
 * The time that each block of a stack takes on the present device, through hooks alone: a forward pass with one block run
 * `copies` times after itself and all others left out, less one with none, over `copies`. Every pass waits for the device;
 * the passes take turns, and each number is a median over the rounds.
 *
 * @param depth number of blocks
 * @param run one forward pass under hooks, on a batch of the size that matters; gives its output
 * @throws ArgumentError where the model has another depth, or no branches that call the hook
 */
export async function measureBlocks(
  depth: number,
  run: (hooks: HookOptions) => tf.Tensor,
  { repeats = 5, warmUp = 1, copies = 4, branches = false, now = () => performance.now(), signal, onProgress }: MeasureBlocksOptions = {},
): Promise<CostTable> {
  for (const [name, value, least] of [['depth', depth, 1], ['repeats', repeats, 1], ['warmUp', warmUp, 0], ['copies', copies, 1]] as const) {
    if (!Number.isInteger(value) || value < least) throw new ArgumentError(`measureBlocks: ${name}`, value, `an integer from ${least}`);
  }
  const passes = [whole(depth, 0, 0)];
  for (let block = 0; block < depth; block++) {
    passes.push(whole(depth, block, copies));
    if (branches) passes.push(branch(block, undefined, copies), branch(block, 'attention', copies), branch(block, 'mlp', copies));
  }
  const times: number[][] = passes.map(() => []);
  for (let round = 0; round < warmUp + repeats; round++) {
    for (const [i, pass] of passes.entries()) {
      throwIfCancelled(signal, 'block costs');
      const start = now();
      const y = run(pass.hooks);
      const probe = tf.tidy(() => tf.slice(tf.reshape(y, [-1]), [0], [1]));
      try {
        await probe.data(); // waits for the device
      } finally {
        tf.dispose([y, probe]);
      }
      const time = now() - start;
      if (pass.seen() === 0) throw new ArgumentError('measureBlocks: run', 'a pass that called no hook', branches ? 'a model that calls `hook` around its blocks and `branchHook` around their attention and MLP' : 'a model that calls `hook` around its blocks');
      if (round >= warmUp) times[i]!.push(time);
    }
    onProgress?.({ task: 'block costs', step: round + 1, total: warmUp + repeats, unit: 'round' });
  }
  const medians = times.map(median);
  const stride = branches ? 4 : 1;
  const column = (offset: number, base: (block: number) => number): number[] => Array.from({ length: depth }, (_, block) => Math.max(0, (medians[1 + stride * block + offset]! - base(block)) / copies));
  const empty = (block: number): number => medians[2 + 4 * block]!;
  const blocks = column(0, () => medians[0]!);
  return { unit: 'ms', blocks, ...(branches ? { attention: column(2, empty), mlp: column(3, empty) } : {}), rest: medians[0]! };
}

/** The same costs as multiples of the mean block's, which are comparable between devices. */
export function relativeCosts(table: CostTable): CostTable {
  const mean = table.blocks.reduce((a, b) => a + b, 0) / table.blocks.length;
  if (!(mean > 0)) throw new ArgumentError('relativeCosts: mean block', mean, 'more than 0; measure with more repeats or a larger batch');
  const scaled = (values: readonly number[]): number[] => values.map((v) => v / mean);
  const { attention, mlp } = table;
  return { unit: 'relative', blocks: scaled(table.blocks), ...(attention === undefined ? {} : { attention: scaled(attention) }), ...(mlp === undefined ? {} : { mlp: scaled(mlp) }), rest: table.rest / mean };
}

/** What a forward pass costs with only `kept` blocks, in the table's unit; with all of them, the whole model's. */
export function expectedCost(table: CostTable, kept: readonly number[]): number {
  return byIndex(table.blocks.length, kept).reduce((sum, block) => sum + table.blocks[block]!, table.rest);
}

/** A forward pass to time. */
interface Pass {
  hooks: HookOptions;
  /** How many of the hooks it is about were called since the last time. */
  seen(): number;
}

/** One block `copies` times, and no other. */
function whole(depth: number, block: number, copies: number): Pass {
  const calls = counter();
  return {
    hooks: {
      hook: (site, x, run) => {
        if (site.depth !== depth) throw new ArgumentError('measureBlocks: depth', depth, `the model's ${site.depth}`);
        calls.count();
        return site.index === block ? again(x, run, copies) : x;
      },
    },
    seen: calls.take,
  };
}

/** One block with one branch `copies` times, or with none. */
function branch(block: number, which: 'attention' | 'mlp' | undefined, copies: number): Pass {
  const calls = counter();
  const branchHook: BlockHook = (site, x, run) => {
    if (which === undefined || site.branch === which) calls.count();
    return site.branch === which ? again(x, run, copies) : x;
  };
  return { hooks: { hook: (site, x, run) => (site.index === block ? run(x) : x), branchHook }, seen: calls.take };
}

/** `copies` runs, each on what the one before made, so that the device cannot do two at a time. */
function again(x: tf.Tensor3D, run: RunBlock, copies: number): tf.Tensor3D {
  let y = x;
  for (let i = 0; i < copies; i++) {
    const next = run(y);
    if (y !== x && y !== next) y.dispose();
    y = next;
  }
  return y;
}

function counter(): { count: () => void; take: () => number } {
  let calls = 0;
  return {
    count: () => void (calls += 1),
    take: () => {
      const taken = calls;
      calls = 0;
      return taken;
    },
  };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

import { ArgumentError, type LongTaskOptions } from '@tinyfusion/core';
import type { BlockHook, HookOptions, RunBlock } from '@tinyfusion/nn';
import type * as tf from '@tensorflow/tfjs-core';
import type { CostTable } from './cost-table.js';
import { quantile, timeInTurns, undelayed } from './turns.js';

/** Options of {@link measureBlocks}. */
export interface MeasureBlocksOptions extends LongTaskOptions {
  /** Rounds of measurements, of which the lower quartile counts. Default 5. */
  repeats?: number;
  /** More of them, up to twenty times as many, as long as all take less than this. Default 0, in milliseconds. */
  forMs?: number;
  /** Rounds before them that do not count. Default 1. */
  warmUp?: number;
  /** Times that a block, or one of those like it, is run in one forward pass, so that it stands out from the rest. Default 4. */
  copies?: number;
  /** Whether attention and MLP are measured too. Default `false`. */
  branches?: boolean;
  /**
   * One label a block ({@link blockKinds}): blocks of the same label do the same work. They are measured together and cost
   * the same, so that no difference between them is the clock's. Default: each block is measured by itself.
   */
  kinds?: readonly string[] | undefined;
  /** The clock, in milliseconds. Default `performance.now`. */
  now?: () => number;
}

/**
 * The time that each block of a stack takes on the present device, through hooks alone: a forward pass with the blocks of one
 * kind and no others, `copies` of them at least, less one with none, over their number. Likewise with attention alone, with
 * the MLP alone and with neither in these blocks; of the four come the block's own time and that of each branch, by least
 * squares. Every pass waits for the device; the passes take turns, and each number is a lower quartile over the rounds:
 * delays come on top of what work takes, and are many or few by chance.
 *
 * @param depth number of blocks
 * @param run one forward pass under hooks, on a batch of the size that matters; gives its output
 * @throws ArgumentError where the model has another depth, or a block has no branch that calls the hook
 */
export async function measureBlocks(
  depth: number,
  run: (hooks: HookOptions) => tf.Tensor,
  { repeats = 5, forMs = 0, warmUp = 1, copies = 4, branches = false, kinds, now = () => performance.now(), signal, onProgress }: MeasureBlocksOptions = {},
): Promise<CostTable> {
  for (const [name, value, least] of [['depth', depth, 1], ['repeats', repeats, 1], ['warmUp', warmUp, 0], ['copies', copies, 1]] as const) {
    if (!Number.isInteger(value) || value < least) throw new ArgumentError(`measureBlocks: ${name}`, value, `an integer from ${least}`);
  }
  if (kinds !== undefined && kinds.length !== depth) throw new ArgumentError('measureBlocks: kinds', kinds.length, `${depth} labels, one for each block`);
  const every = Array.from({ length: depth }, (_, block) => block);
  const alike = kinds === undefined ? every.map((block) => [block]) : [...new Set(kinds)].map((kind) => every.filter((block) => kinds[block] === kind));
  const parts = branches ? (['all', 'attention', 'mlp', 'neither'] as const) : (['all'] as const);
  const passes = [pass(run, { depth, blocks: [], copies: 0, part: 'all' })];
  for (const blocks of alike) for (const part of parts) passes.push(pass(run, { depth, blocks, copies: Math.ceil(copies / blocks.length), part }));
  const times = await timeInTurns(passes, { task: 'block costs', repeats, forMs, warmUp, now, signal, onProgress });
  const rest = undelayed(times[0]!);
  const empty = (): number[] => Array.from({ length: depth }, () => 0);
  const table = { blocks: empty(), attention: empty(), mlp: empty(), spread: empty() };
  for (const [i, blocks] of alike.entries()) {
    const own = times.slice(1 + parts.length * i, 1 + parts.length * (i + 1));
    const runs = blocks.length * Math.ceil(copies / blocks.length);
    const [all, ...parted] = own.map((rounds) => (undelayed(rounds) - rest) / runs) as [number, number, number, number];
    const [whole, attention, mlp] = branches ? branchesOf(all, ...parted) : [Math.max(0, all), 0, 0];
    const spread = (quantile(own[0]!, 0.75) - quantile(own[0]!, 0.25)) / runs;
    for (const block of blocks) [table.blocks[block], table.attention[block], table.mlp[block], table.spread[block]] = [whole, attention, mlp, spread];
  }
  return { unit: 'ms', blocks: table.blocks, ...(branches ? { attention: table.attention, mlp: table.mlp } : {}), rest, spread: table.spread };
}

/** Times of a block, its attention and its MLP out of those of the block with both, one and none: o + a + m, o + a, o + m and o by least squares. */
function branchesOf(both: number, attention: number, mlp: number, neither: number): [block: number, attention: number, mlp: number] {
  const gap = both - attention - mlp + neither; // 0 but for noise
  const block = Math.max(0, both - gap / 4);
  const [a, m] = [Math.max(0, both - mlp - gap / 2), Math.max(0, both - attention - gap / 2)];
  const scale = a + m > block ? block / (a + m) : 1; // a block has no less than its branches
  return [block, scale * a, scale * m];
}

/** What runs in a pass. */
interface Part {
  depth: number;
  /** The blocks that run, and no others. */
  blocks: readonly number[];
  /** Times that each of them runs. */
  copies: number;
  /** What of them. */
  part: 'all' | 'attention' | 'mlp' | 'neither';
}

/** A forward pass to time. @throws ArgumentError where it did not come by what it is about */
function pass(run: (hooks: HookOptions) => tf.Tensor, { depth, blocks, copies, part }: Part): () => tf.Tensor {
  const running = new Set(blocks);
  let seen: Set<number>;
  const hook: BlockHook = (site, x, block) => {
    if (site.depth !== depth) throw new ArgumentError('measureBlocks: depth', depth, `the model's ${site.depth}`);
    if (part === 'all' || part === 'neither') seen.add(site.index);
    return running.has(site.index) ? again(x, block, copies) : x;
  };
  const branchHook: BlockHook = (site, x, branch) => {
    if (site.branch !== part) return x;
    seen.add(site.index);
    return branch(x);
  };
  const wanted = blocks.length === 0 ? [0] : blocks;
  return () => {
    seen = new Set();
    const y = run(part === 'all' ? { hook } : { hook, branchHook });
    const missed = wanted.find((block) => !seen.has(block));
    if (missed === undefined) return y;
    y.dispose();
    throw part === 'all' || part === 'neither'
      ? new ArgumentError('measureBlocks: run', 'a pass that called no hook', 'a model that calls `hook` around its blocks')
      : new ArgumentError('measureBlocks: run', `a pass that called no hook around the ${part === 'mlp' ? 'MLP' : part} of block ${missed}`, 'a model that calls `branchHook` around attention and MLP of its blocks, all of which have both');
  };
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

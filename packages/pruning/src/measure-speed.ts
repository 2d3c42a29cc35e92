import { ArgumentError, type LongTaskOptions } from '@tinyfusion/core';
import type { HookOptions } from '@tinyfusion/nn';
import type * as tf from '@tensorflow/tfjs-core';
import { quantile, timeInTurns } from './turns.js';

/** Options of {@link measureSpeed}. */
export interface MeasureSpeedOptions extends LongTaskOptions {
  /** Rounds that count. Default 15. */
  repeats?: number;
  /** Rounds before them that do not. Default 2. */
  warmUp?: number;
  /** The clock, in milliseconds. Default `performance.now`. */
  now?: () => number;
}

/** How fast a model is under hooks beside the same without. */
export interface MeasuredSpeed {
  /** Times as fast: the median over the rounds of one time over the other. */
  faster: number;
  /** The quartiles of the same. */
  quartiles: [lower: number, upper: number];
  /** Medians, in milliseconds. */
  whole: number;
  hooked: number;
}

/**
 * Times a model whole and under hooks, e.g. {@link maskHook}'s, in turns: what slows the machine slows both, and the ratio of
 * neighbours is hardly touched.
 * @param run one forward pass, on a batch of the size that matters; gives its output
 */
export async function measureSpeed(run: (hooks: HookOptions) => tf.Tensor, hooks: HookOptions, { repeats = 15, warmUp = 2, now = () => performance.now(), ...task }: MeasureSpeedOptions = {}): Promise<MeasuredSpeed> {
  for (const [name, value, least] of [['repeats', repeats, 1], ['warmUp', warmUp, 0]] as const) {
    if (!Number.isInteger(value) || value < least) throw new ArgumentError(`measureSpeed: ${name}`, value, `an integer from ${least}`);
  }
  const [whole, hooked] = (await timeInTurns([() => run({}), () => run(hooks)], { task: 'speed', repeats, warmUp, now, ...task })) as [number[], number[]];
  const ratios = whole.map((time, round) => time / hooked[round]!);
  return { faster: quantile(ratios, 0.5), quartiles: [quantile(ratios, 0.25), quantile(ratios, 0.75)], whole: quantile(whole, 0.5), hooked: quantile(hooked, 0.5) };
}

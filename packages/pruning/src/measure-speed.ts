import { ArgumentError, type LongTaskOptions, createRng } from '@tinyfusion/core';
import type { HookOptions } from '@tinyfusion/nn';
import type * as tf from '@tensorflow/tfjs-core';
import { quantile, timeInTurns, undelayed } from './turns.js';

/** Options of {@link measureSpeed}. */
export interface MeasureSpeedOptions extends LongTaskOptions {
  /** Rounds that count. Default 15. */
  repeats?: number;
  /** More of them, up to twenty times as many, as long as all take less than this. Default 0, in milliseconds. */
  forMs?: number;
  /** Rounds before them that do not. Default 2. */
  warmUp?: number;
  /** The clock, in milliseconds. Default `performance.now`. */
  now?: () => number;
}

/** How fast a model is under hooks beside the same without. */
export interface MeasuredSpeed {
  /** Times as fast: one lower quartile over the other. */
  faster: number;
  /** Half of what other rounds like these would have given is between (bootstrap over the rounds). */
  quartiles: [lower: number, upper: number];
  /** Lower quartiles, in milliseconds. */
  whole: number;
  hooked: number;
}

/** Draws of the bootstrap. */
const DRAWS = 200;

/**
 * Times a model whole and under hooks, e.g. {@link maskHook}'s, in turns, so that what slows the machine slows both.
 * @param run one forward pass, on a batch of the size that matters; gives its output
 */
export async function measureSpeed(run: (hooks: HookOptions) => tf.Tensor, hooks: HookOptions, { repeats = 15, forMs = 0, warmUp = 2, now = () => performance.now(), ...task }: MeasureSpeedOptions = {}): Promise<MeasuredSpeed> {
  for (const [name, value, least] of [['repeats', repeats, 1], ['warmUp', warmUp, 0]] as const) {
    if (!Number.isInteger(value) || value < least) throw new ArgumentError(`measureSpeed: ${name}`, value, `an integer from ${least}`);
  }
  const [whole, hooked] = (await timeInTurns([() => run({}), () => run(hooks)], { task: 'speed', repeats, forMs, warmUp, now, ...task })) as [number[], number[]];
  const rng = createRng(0);
  const others = Array.from({ length: DRAWS }, () => {
    const rounds = Array.from(rng.integers(0, whole.length, whole.length));
    return undelayed(rounds.map((i) => whole[i]!)) / undelayed(rounds.map((i) => hooked[i]!));
  });
  return { faster: undelayed(whole) / undelayed(hooked), quartiles: [quantile(others, 0.25), quantile(others, 0.75)], whole: undelayed(whole), hooked: undelayed(hooked) };
}

import { type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/** Options of {@link timeInTurns}. */
export interface TurnsOptions extends LongTaskOptions {
  /** Name of the task in progress events. */
  task: string;
  /** Rounds that count. */
  repeats: number;
  /** Rounds before them that do not. */
  warmUp: number;
  /** The clock, in milliseconds. */
  now: () => number;
}

/**
 * Times passes in turns, so that whatever slows the machine slows all of them: each round runs every pass once, every
 * second round from the last to the first, and waits for the device after each.
 *
 * @param passes each gives a tensor, which is disposed
 * @returns milliseconds by pass and round
 */
export async function timeInTurns(passes: readonly (() => tf.Tensor)[], { task, repeats, warmUp, now, signal, onProgress }: TurnsOptions): Promise<number[][]> {
  const times: number[][] = passes.map(() => []);
  for (let round = 0; round < warmUp + repeats; round++) {
    const order = [...passes.entries()];
    for (const [i, pass] of round % 2 === 0 ? order : order.toReversed()) {
      throwIfCancelled(signal, task);
      const start = now();
      const y = pass();
      const probe = tf.tidy(() => tf.slice(tf.reshape(y, [-1]), [0], [1]));
      try {
        await probe.data(); // waits for the device
      } finally {
        tf.dispose([y, probe]);
      }
      if (round >= warmUp) times[i]!.push(now() - start);
    }
    onProgress?.({ task, step: round + 1, total: warmUp + repeats, unit: 'round' });
  }
  return times;
}

/** The value below which a share of the others is; between two the nearer to the lower. */
export function quantile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))]!;
}

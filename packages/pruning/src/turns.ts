import { type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/** Options of {@link timeInTurns}. */
export interface TurnsOptions extends LongTaskOptions {
  /** Name of the task in progress events. */
  task: string;
  /** Rounds that count, at least. */
  repeats: number;
  /** More rounds, up to twenty times as many, where all of them take less than this, in milliseconds. */
  forMs: number;
  /** Rounds before them that do not. */
  warmUp: number;
  /** The clock, in milliseconds. */
  now: () => number;
}

/** Times that a short pass is run in a row, at most. */
const MOST_RUNS = 16;

/**
 * Times passes in turns, so that whatever slows the machine slows all of them: each round takes every pass once, every
 * second round from the last to the first, and waits for the device after each. Short passes are run several times in a
 * row, about as long as the longest: where others share the machine, short ones slip in between and long ones never do.
 *
 * @param passes each gives a tensor, which is disposed
 * @returns milliseconds by pass and round, for one run of it
 */
export async function timeInTurns(passes: readonly (() => tf.Tensor)[], { task, repeats, forMs, warmUp, now, signal, onProgress }: TurnsOptions): Promise<number[][]> {
  const times: number[][] = passes.map(() => []);
  let runs = passes.map(() => 1);
  let total = warmUp + repeats;
  for (let round = 0; round < total; round++) {
    const order = [...passes.entries()];
    const own = passes.map(() => 0);
    for (const [i, pass] of round % 2 === 0 ? order : order.toReversed()) {
      const start = now();
      for (let run = 0; run < runs[i]!; run++) {
        throwIfCancelled(signal, task);
        const y = pass();
        const probe = tf.tidy(() => tf.slice(tf.reshape(y, [-1]), [0], [1]));
        try {
          await probe.data(); // waits for the device
        } finally {
          tf.dispose([y, probe]);
        }
      }
      own[i] = now() - start;
      if (round >= warmUp) times[i]!.push(own[i]! / runs[i]!);
    }
    const [took, longest] = [own.reduce((a, b) => a + b, 0), Math.max(...own)];
    if (round === warmUp - 1) runs = own.map((time) => (time > 0 ? Math.min(MOST_RUNS, Math.round(longest / time)) : 1));
    if (round === warmUp && took > 0) total = warmUp + Math.min(20 * repeats, Math.max(repeats, Math.ceil(forMs / took)));
    onProgress?.({ task, step: round + 1, total, unit: 'round' });
  }
  return times;
}

/** The time that a pass takes where little comes in between: the lower quartile, as delays come on top and are many or few by chance. */
export const undelayed = (times: readonly number[]): number => quantile(times, 0.25);

/** The value below which a share of the others is; between two the lower. */
export function quantile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))]!;
}

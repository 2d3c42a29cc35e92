import { ArgumentError, type Rng, throwIfCancelled } from '@tinyfusion/core';
import { philoxNormal } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

/** One step of a sampler. */
export interface SamplingStep {
  /** Steps done, from 1. */
  step: number;
  total: number;
  /** Index into the process that was left, from the last to 0. */
  t: number;
  /** The data after this step. It belongs to the sampler until the next step is asked for; the last one's to the caller. */
  x: tf.Tensor;
  /** The model's idea of the end result at this step; belongs to the sampler until the next step, the last one's too. */
  xStart: tf.Tensor;
}

/** A sampling run: ask for the next step, or leave early. */
export type Sampling = AsyncGenerator<SamplingStep, void, void>;

/** Where a sampler's noise comes from: a tensor of the shape for each draw, in order. */
export type NoiseSource = (shape: readonly number[]) => tf.Tensor;

/** Options that samplers share. */
export interface SamplingOptions {
  /** Noise to start from, `[N, …, C]`; borrowed. */
  noise: tf.Tensor;
  /** Source of the noise of each step. Needed where `noiseSource` is not given and the sampler draws noise. */
  rng?: Rng;
  /** Replaces `rng`, e.g. to replay recorded draws. */
  noiseSource?: NoiseSource;
  /** Whether the predicted x₀ is clipped to [-1, 1], or by a number to ± that. Default `false`, as DiT samples latents. */
  clipDenoised?: boolean | number;
  /** Ends the run with a `CancelledError`. */
  signal?: AbortSignal | undefined;
}

/** The noise source of the options. */
export function noiseSourceOf(sampler: string, { rng, noiseSource }: Pick<SamplingOptions, 'rng' | 'noiseSource'>): NoiseSource {
  if (noiseSource !== undefined) return noiseSource;
  if (rng === undefined) throw new ArgumentError(`${sampler}: rng`, rng, 'an Rng (createRng(seed)), or a noiseSource');
  return (shape) => philoxNormal(rng, shape);
}

/** What a step leads to; both belong to the sampler. */
type Moved = { x: tf.Tensor; xStart: tf.Tensor };

/**
 * Steps from the end of a process to its start.
 * @param move from x at step t to the next x; promised where the model promises its output
 * @yields each step, once `move` is done
 */
export async function* walk(name: string, steps: Iterable<number>, total: number, noise: tf.Tensor, signal: AbortSignal | undefined, move: (x: tf.Tensor, t: number) => Moved | Promise<Moved>): Sampling {
  let x = tf.clone(noise);
  let handedOver = false;
  try {
    let step = 0;
    for (const t of steps) {
      throwIfCancelled(signal, name);
      const moved = move(x, t);
      const next = moved instanceof Promise ? await moved : moved;
      x.dispose();
      x = next.x;
      step += 1;
      handedOver = step === total;
      try {
        yield { step, total, t, x, xStart: next.xStart };
      } finally {
        next.xStart.dispose();
      }
      // timers and input get their turn
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  } finally {
    if (!handedOver) x.dispose();
  }
}

/**
 * Runs a sampler to its end. Where it, or `onStep`, throws, nothing is left behind.
 * @returns the last x, which belongs to the caller
 */
export async function sampleToEnd<X extends tf.Tensor, Step extends { x: X }>(sampling: AsyncIterable<Step & { x: X }>, onStep?: (step: Step) => void): Promise<X> {
  let x: X | undefined;
  try {
    for await (const step of sampling) {
      x = step.x;
      onStep?.(step);
    }
  } catch (error) {
    // the last x is ours already, the ones before the sampler has freed
    x?.dispose();
    throw error;
  }
  if (x === undefined) throw new ArgumentError('sampleToEnd: sampling', 'finished', 'a run with at least one step left');
  return x;
}

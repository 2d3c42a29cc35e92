import { CancelledError, type LongTaskOptions, TinyFusionError } from '@tinyfusion/core';
import { type Collective, allGather, anyRank } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';

/** Which batches of a list are this rank's: every `size`-th from `rank` on, so that ranks get one each in a round. */
export interface BatchShare {
  rank: number;
  size: number;
}

/** Options of {@link batchesInOrder}. */
export interface BatchesInOrderOptions extends LongTaskOptions {
  /** Batches of all ranks. */
  count: number;
  /** Images of all ranks, for progress. */
  total: number;
  /** `[H, W, C]` of an image. */
  shape: readonly [number, number, number];
  /** Name of the task in progress events. */
  task: string;
}

/**
 * All ranks' batches in order, on every rank: those of a round travel together. What one process draws comes out. Progress is
 * of all ranks' images.
 *
 * @param own this rank's batches, `[n, H, W, C]`, which are freed here; where they are cancelled, all ranks stop after the round
 * @yields batches that are the caller's
 * @throws CancelledError on all ranks when `signal` is aborted on one
 */
export async function* batchesInOrder(collective: Collective, own: AsyncGenerator<tf.Tensor4D, void, void>, { count, total, shape, task, signal, onProgress }: BatchesInOrderOptions): AsyncGenerator<tf.Tensor4D, void, void> {
  const size = shape[0] * shape[1] * shape[2];
  let done = 0;
  try {
    for (let round = 0; round * collective.size < count; round++) {
      const mine = round * collective.size + collective.rank < count && signal?.aborted !== true ? await nextOf(own) : undefined;
      if (await anyRank(collective, mine === 'cancelled' || signal?.aborted === true)) {
        if (mine instanceof tf.Tensor) mine.dispose();
        throw new CancelledError(task);
      }
      const images = mine instanceof tf.Tensor ? mine : undefined;
      const values = images === undefined ? new Float32Array(0) : ((await images.data()) as Float32Array);
      images?.dispose();
      const parts = await allGather(collective, values);
      done += parts.reduce((sum, part) => sum + part.length, 0) / size;
      onProgress?.({ task, step: done, total, unit: 'image' });
      for (const part of parts) if (part.length > 0) yield tf.tensor4d(part, [part.length / size, ...shape]);
    }
  } finally {
    await own.return();
  }
}

/** The next batch, or that drawing it was cancelled, which the other ranks have to be told. */
async function nextOf(own: AsyncGenerator<tf.Tensor4D, void, void>): Promise<tf.Tensor4D | undefined | 'cancelled'> {
  try {
    return (await own.next()).value ?? undefined;
  } catch (error) {
    if (TinyFusionError.isInstance(error) && error.code === 'CANCELLED') return 'cancelled';
    throw error;
  }
}

import { CancelledError, type LongTaskOptions } from '@tinyfusion/core';
import { type Collective, allGather, anyRank } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';

/** Which batches of a list are this rank's: every `size`-th from `rank` on, so that ranks get one each in a round. */
export interface BatchShare {
  rank: number;
  size: number;
}

/**
 * All ranks' batches in order, on every rank: those of a round travel together. What one process draws comes out.
 *
 * @param own this rank's batches, `[n, H, W, C]`, which are freed here; drawn without a signal, as all ranks stop together
 * @param count batches of all ranks
 * @param shape `[H, W, C]` of an image
 * @yields batches that are the caller's
 * @throws CancelledError on all ranks when `signal` is aborted on one
 */
export async function* batchesInOrder(collective: Collective, own: AsyncGenerator<tf.Tensor4D, void, void>, { count, shape, task, signal }: { count: number; shape: readonly [number, number, number]; task: string } & Pick<LongTaskOptions, 'signal'>): AsyncGenerator<tf.Tensor4D, void, void> {
  try {
    for (let round = 0; round * collective.size < count; round++) {
      if (await anyRank(collective, signal?.aborted === true)) throw new CancelledError(task);
      const mine = round * collective.size + collective.rank < count ? (await own.next()).value : undefined;
      const values = mine === undefined ? new Float32Array(0) : ((await mine.data()) as Float32Array);
      mine?.dispose();
      for (const part of await allGather(collective, values)) if (part.length > 0) yield tf.tensor4d(part, [part.length / (shape[0] * shape[1] * shape[2]), ...shape]);
    }
  } finally {
    await own.return();
  }
}

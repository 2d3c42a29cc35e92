import { ArgumentError, type Rng, type RngState, restoreRng } from '@tinyfusion/core';

/** Where a shuffled pass over the data stands; plain JSON, so that a resumed run sees the same batches. */
export interface BatchPosition {
  /** The stream before the current epoch's order was drawn. */
  epochStart: RngState;
  /** Batches of the epoch that have been given out. */
  taken: number;
}

/** Endless shuffled batches of indices. */
export interface Batches {
  /** Indices of the next batch; every epoch is a new order, what is left of it is dropped. */
  next(): Int32Array;
  /** Where it stands. */
  position(): BatchPosition;
}

/**
 * Draws batches of `batchSize` out of `count` items.
 * @param from an `Rng`, or a saved position
 * @throws ArgumentError where a batch is larger than the data
 */
export function shuffledBatches(count: number, batchSize: number, from: Rng | BatchPosition): Batches {
  if (!Number.isInteger(batchSize) || batchSize < 1 || batchSize > count) throw new ArgumentError('batchSize', batchSize, `an integer from 1 to the ${count} items there are`);
  const rng = 'epochStart' in from ? restoreRng(from.epochStart) : from;
  const perEpoch = Math.floor(count / batchSize);
  let epochStart = rng.state();
  let order = rng.permutation(count);
  let taken = 'epochStart' in from ? from.taken : 0;
  return {
    next() {
      if (taken === perEpoch) {
        epochStart = rng.state();
        order = rng.permutation(count);
        taken = 0;
      }
      taken += 1;
      return order.slice((taken - 1) * batchSize, taken * batchSize);
    },
    position: () => ({ epochStart, taken }),
  };
}

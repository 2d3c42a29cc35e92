import { ArgumentError, type Rng, type RngState, restoreRng } from '@tinyfusion/core';

/** Where a shuffled pass over the data stands; plain JSON, so that a resumed run sees the same batches. */
export interface BatchPosition {
  /** The stream before the current epoch's order was drawn. */
  epochStart: RngState;
  /** Batches of the epoch that have been given out. */
  taken: number;
  /** Of how many items. Positions of earlier versions do not say. */
  count?: number;
  /** In batches of how many. */
  batchSize?: number;
}

/** Endless shuffled batches of indices. */
export interface Batches {
  /** Indices of the next batch; every epoch is a new order, what is left of it is dropped. */
  next(): Int32Array;
  /** Where it stands. */
  position(): BatchPosition;
}

/** The order drawn last: a step that is computed in parts goes back to its place many times, and an order takes a while. */
let lastOrder: { key: string; order: Int32Array; after: RngState } | undefined;

/**
 * Draws batches of `batchSize` out of `count` items.
 * @param from an `Rng`, which is copied: it does not move, and what is drawn from it later changes no batch. Give one of its
 * own (`rng.split('data')`), as other draws would be of the same numbers. Or a saved position
 * @throws ArgumentError where a batch is larger than the data, or the position is of other items or batches
 */
export function shuffledBatches(count: number, batchSize: number, from: Rng | BatchPosition): Batches {
  if (!Number.isInteger(batchSize) || batchSize < 1 || batchSize > count) throw new ArgumentError('batchSize', batchSize, `an integer from 1 to the ${count} items there are`);
  const perEpoch = Math.floor(count / batchSize);
  const start: BatchPosition = 'epochStart' in from ? checked(from, count, batchSize, perEpoch) : { epochStart: from.state(), taken: 0 };
  let rng = restoreRng(start.epochStart);
  let { epochStart, taken } = start;
  let order: Int32Array;
  const drawOrder = (): void => {
    epochStart = rng.state();
    const key = JSON.stringify([count, epochStart]);
    if (lastOrder?.key === key) {
      ({ order } = lastOrder);
      rng = restoreRng(lastOrder.after);
      return;
    }
    order = rng.permutation(count);
    lastOrder = { key, order, after: rng.state() };
  };
  drawOrder();
  return {
    next() {
      if (taken === perEpoch) {
        drawOrder();
        taken = 0;
      }
      taken += 1;
      return order.slice((taken - 1) * batchSize, taken * batchSize);
    },
    position: () => ({ epochStart, taken, count, batchSize }),
  };
}

function checked(saved: BatchPosition, count: number, batchSize: number, perEpoch: number): BatchPosition {
  const { taken } = saved;
  if (saved.count !== undefined && saved.count !== count) throw new ArgumentError('BatchPosition.count', saved.count, `${count}, the items there are: go on with the data that it was saved with`);
  if (saved.batchSize !== undefined && saved.batchSize !== batchSize) throw new ArgumentError('BatchPosition.batchSize', saved.batchSize, `${batchSize}: go on with the batch size that it was saved with`);
  if (!Number.isInteger(taken) || taken < 0 || taken > perEpoch) throw new ArgumentError('BatchPosition.taken', taken, `an integer from 0 to ${perEpoch}, the batches of ${batchSize} that ${count} items make: go on with the batch size and data that it was saved with`);
  return saved;
}

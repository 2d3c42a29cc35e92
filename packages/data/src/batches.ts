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

/** The order drawn last: a step that is computed in parts goes back to its place many times, and an order takes a while. */
let lastOrder: { key: string; order: Int32Array; after: RngState } | undefined;

/**
 * Draws batches of `batchSize` out of `count` items.
 * @param from an `Rng`, or a saved position
 * @throws ArgumentError where a batch is larger than the data
 */
export function shuffledBatches(count: number, batchSize: number, from: Rng | BatchPosition): Batches {
  if (!Number.isInteger(batchSize) || batchSize < 1 || batchSize > count) throw new ArgumentError('batchSize', batchSize, `an integer from 1 to the ${count} items there are`);
  const saved = 'epochStart' in from ? from : undefined;
  let rng = saved === undefined ? (from as Rng) : restoreRng(saved.epochStart);
  const perEpoch = Math.floor(count / batchSize);
  let epochStart = rng.state();
  let order: Int32Array;
  const drawOrder = (): void => {
    epochStart = rng.state();
    const key = JSON.stringify([count, epochStart]);
    if (saved !== undefined && lastOrder?.key === key) {
      ({ order } = lastOrder);
      rng = restoreRng(lastOrder.after);
      return;
    }
    order = rng.permutation(count);
    lastOrder = { key, order, after: rng.state() };
  };
  drawOrder();
  let taken = saved?.taken ?? 0;
  return {
    next() {
      if (taken === perEpoch) {
        drawOrder();
        taken = 0;
      }
      taken += 1;
      return order.slice((taken - 1) * batchSize, taken * batchSize);
    },
    position: () => ({ epochStart, taken }),
  };
}

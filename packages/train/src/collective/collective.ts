/** How values of all ranks become one. */
export type Reduction = 'sum' | 'mean' | 'max';

/** What can be sent between ranks. */
export type CollectiveArray = Float32Array | Float64Array | Uint8Array;

/**
 * Processes or threads that compute together, in the words of MPI: each is a rank of so many. Every rank makes the same
 * calls, with arrays of the same type and length, in the same order; several may be under way at once. An array that was
 * handed over is not touched until its promise is settled.
 */
export interface Collective {
  /** 0 … size − 1. By convention rank 0 reads, writes and reports. */
  readonly rank: number;
  readonly size: number;
  /** Each value becomes the sum, mean or maximum of all ranks' values at its place; in place. */
  allReduce(values: Float32Array | Float64Array, how: Reduction): Promise<void>;
  /** Every rank gets rank 0's values; in place. */
  broadcast(values: CollectiveArray): Promise<void>;
  /** Settles when every rank has come here. */
  barrier(): Promise<void>;
  /** Takes leave of the others, who must do so too. */
  close(): Promise<void>;
}

/** A rank of one: nothing is sent. */
export function singleCollective(): Collective {
  const nothing = async (): Promise<void> => {};
  return { rank: 0, size: 1, allReduce: nothing, broadcast: nothing, barrier: nothing, close: nothing };
}

/** Whether `flag` holds on any rank; all get the same answer. */
export async function anyRank(collective: Collective, flag: boolean): Promise<boolean> {
  if (collective.size === 1) return flag;
  const values = Float32Array.of(flag ? 1 : 0);
  await collective.allReduce(values, 'max');
  return values[0] === 1;
}

import { ArgumentError } from '@tinyfusion/core';
import type { Collective, CollectiveArray, Reduction } from './collective.js';
import { CAPACITY, SIZE, markGone, threadBarrier } from './thread-barrier.js';

/** Bytes of the numbers in front. */
const HEADER = 64;

/**
 * Memory for {@link threadCollective}: numbers in front, then room for a result and for every thread's values.
 * @param bytes how much travels at once; longer arrays go in pieces. Default 2 MB
 */
export function threadMemory(size: number, { bytes = 2 * 2 ** 20 }: { bytes?: number } = {}): SharedArrayBuffer {
  if (!Number.isInteger(size) || size < 1) throw new ArgumentError('threadMemory: size', size, 'a positive number of threads');
  if (!Number.isInteger(bytes) || bytes < 8 || bytes % 8 !== 0) throw new ArgumentError('threadMemory: bytes', bytes, 'a positive multiple of 8');
  const memory = new SharedArrayBuffer(HEADER + (1 + size) * bytes);
  const control = new Int32Array(memory, 0, HEADER / 4);
  control[SIZE!] = size;
  control[CAPACITY!] = bytes;
  return memory;
}

/**
 * Threads of one process, workers of Node or of a page, over shared memory. Every thread sums its own slice of all
 * threads' values, always in the order of ranks: results do not depend on timing, and are the same on every rank to the bit.
 *
 * @param memory of {@link threadMemory}, the same for all
 * @throws ArgumentError where the memory has no such rank. Its calls throw TinyFusionError `RANK_FAILED` when a rank has failed, or has returned without them
 */
export function threadCollective(memory: SharedArrayBuffer, rank: number): Collective {
  const control = new Int32Array(memory, 0, HEADER / 4);
  const [size, capacity] = [control[SIZE!]!, control[CAPACITY!]!];
  if (!Number.isInteger(rank) || rank < 0 || rank >= size) throw new ArgumentError('threadCollective: rank', rank, `an integer from 0 to ${size - 1}`);
  // calls that overlap are made one after another
  let last: Promise<void> = Promise.resolve();
  const inTurn = (task: () => Promise<void>): Promise<void> => {
    const result = last.then(task);
    last = result.catch(() => {});
    return result;
  };
  // an array in pieces that fit, each with views of the shared result and of every thread's room
  const pieces = function* <A extends CollectiveArray>(array: A): Generator<{ piece: A; result: A; rooms: A[] }> {
    const View = array.constructor as new (buffer: SharedArrayBuffer, offset: number, length: number) => A;
    const most = capacity / array.BYTES_PER_ELEMENT;
    for (let at = 0; at < array.length; at += most) {
      const piece = array.subarray(at, at + most) as A;
      const view = (room: number): A => new View(memory, HEADER + room * capacity, piece.length);
      yield { piece, result: view(0), rooms: Array.from({ length: size }, (_, r) => view(1 + r)) };
    }
  };
  return {
    rank,
    size,
    allReduce: (values, how) =>
      inTurn(async () => {
        for (const { piece, result, rooms } of pieces(values)) {
          rooms[rank]!.set(piece);
          await threadBarrier(control);
          const slice = (part: typeof piece): typeof piece => part.subarray(Math.floor((rank * piece.length) / size), Math.floor(((rank + 1) * piece.length) / size)) as typeof piece;
          reduceInto(slice(result), rooms.map(slice), how);
          await threadBarrier(control);
          piece.set(result);
        }
      }),
    broadcast: (values) =>
      inTurn(async () => {
        for (const { piece, result } of pieces(values)) {
          if (rank === 0) result.set(piece);
          await threadBarrier(control);
          if (rank !== 0) piece.set(result);
          await threadBarrier(control);
        }
      }),
    barrier: () => inTurn(() => threadBarrier(control)),
    close: () => inTurn(() => threadBarrier(control)),
  };
}

/**
 * Tells the threads of a memory that one of them will not answer any more: who waits for it gets an error.
 * @param how `'returned'` where it has ended well. Default `'failed'`
 */
export function failThread(memory: SharedArrayBuffer, rank: number, how: 'failed' | 'returned' = 'failed'): void {
  markGone(new Int32Array(memory, 0, HEADER / 4), rank, how);
}

/** result = the sum, mean or maximum of all sources. */
function reduceInto(result: Float32Array | Float64Array, sources: readonly (Float32Array | Float64Array)[], how: Reduction): void {
  result.set(sources[0]!);
  for (const source of sources.slice(1)) {
    if (how === 'max') for (let i = 0; i < result.length; i++) result[i] = Math.max(result[i]!, source[i]!);
    else for (let i = 0; i < result.length; i++) result[i] = result[i]! + source[i]!;
  }
  if (how === 'mean') for (let i = 0; i < result.length; i++) result[i] = result[i]! / sources.length;
}

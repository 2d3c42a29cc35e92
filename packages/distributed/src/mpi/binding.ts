import { BackendError } from '@tinyfusion/core';
import type { CollectiveArray } from '@tinyfusion/train';
import { type Handle, abiOf } from './abi.js';
import type { MpiLibrary } from './library.js';

/** Room that MPI writes the number of a request into. */
type Request = BigUint64Array | Int32Array;

/** A call that was begun; `done()` says whether it is over, and drives it on. */
export interface Begun {
  done(): boolean;
}

/** The part of MPI that collectives need. */
export interface Mpi {
  /** @throws BackendError where MPI was shut down before */
  init(): void;
  rank(): number;
  size(): number;
  allReduce(values: Float32Array | Float64Array, how: 'sum' | 'max'): Begun;
  broadcast(values: CollectiveArray): Begun;
  barrier(): Begun;
  finalize(): void;
  /** Ends all processes of the job. */
  abort(code: number): void;
}

/** Elements of a call at most: MPI counts in 32 bits. */
export const MOST_ELEMENTS = 2 ** 30;

/** JavaScript functions for a library's, with its constants filled in. Calls throw BackendError with MPI's error code. */
export function bind(mpi: MpiLibrary): Mpi {
  const { library } = mpi;
  const { handle, world, types, sum, max, inPlace, ignoreStatus, newRequest } = abiOf(mpi);
  const declare = <A extends unknown[]>(name: string, ...parameters: string[]): ((...values: A) => void) => {
    const call = library.func(name, 'int', parameters) as unknown as (...values: A) => number;
    return (...values) => {
      const code = call(...values);
      if (code !== 0) throw new BackendError(`${name} failed with code ${code} (${mpi.version.split('\n')[0]})`);
    };
  };
  const [pointer, address] = ['void *', 'intptr_t'];
  const calls = {
    initialized: declare<[Int32Array]>('MPI_Initialized', pointer),
    finalized: declare<[Int32Array]>('MPI_Finalized', pointer),
    init: declare<[null, null, number, Int32Array]>('MPI_Init_thread', pointer, pointer, 'int', pointer),
    rank: declare<[Handle, Int32Array]>('MPI_Comm_rank', handle, pointer),
    size: declare<[Handle, Int32Array]>('MPI_Comm_size', handle, pointer),
    allReduce: declare<[bigint, CollectiveArray, number, Handle, Handle, Handle, Request]>('MPI_Iallreduce', address, pointer, 'int', handle, handle, handle, pointer),
    broadcast: declare<[CollectiveArray, number, Handle, number, Handle, Request]>('MPI_Ibcast', pointer, 'int', handle, 'int', handle, pointer),
    barrier: declare<[Handle, Request]>('MPI_Ibarrier', handle, pointer),
    test: declare<[Request, Int32Array, bigint]>('MPI_Test', pointer, pointer, address),
    finalize: declare<[]>('MPI_Finalize'),
    abort: declare<[Handle, number]>('MPI_Abort', handle, 'int'),
  };
  const number = (ask: (into: Int32Array) => void): number => {
    const into = new Int32Array(1);
    ask(into);
    return into[0]!;
  };
  // MPI writes into `values` until it is done: `begun` keeps them from the garbage collector
  const begin = (values: CollectiveArray | undefined, start: (request: Request) => void): Begun & { values: CollectiveArray | undefined } => {
    const [request, flag] = [newRequest(), new Int32Array(1)];
    start(request);
    return {
      values,
      done: () => {
        calls.test(request, flag, ignoreStatus);
        return flag[0] !== 0;
      },
    };
  };
  const typeOf = (values: CollectiveArray): Handle => (values instanceof Float32Array ? types.float : values instanceof Float64Array ? types.double : types.byte);
  return {
    init: () => {
      if (number(calls.finalized) !== 0) throw new BackendError('MPI was shut down in this process, and can be started only once; keep its collective open for as long as anything needs it');
      // 0: MPI_THREAD_SINGLE, all calls come from this thread
      if (number(calls.initialized) === 0) calls.init(null, null, 0, new Int32Array(1));
    },
    rank: () => number((into) => calls.rank(world, into)),
    size: () => number((into) => calls.size(world, into)),
    allReduce: (values, how) => begin(values, (request) => calls.allReduce(inPlace, values, values.length, typeOf(values), how === 'max' ? max : sum, world, request)),
    broadcast: (values) => begin(values, (request) => calls.broadcast(values, values.length, typeOf(values), 0, world, request)),
    barrier: () => begin(undefined, (request) => calls.barrier(world, request)),
    finalize: () => calls.finalize(),
    abort: (code) => calls.abort(world, code),
  };
}

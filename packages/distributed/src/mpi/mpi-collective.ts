import { BackendError } from '@tinyfusion/core';
import type { Collective, CollectiveArray } from '@tinyfusion/train';
import { writeSync } from 'node:fs';
import { launchedByMpi } from '../launched-by-mpi.js';
import { type Begun, MOST_ELEMENTS, type Mpi, bind } from './binding.js';
import { loadMpi } from './library.js';
import { ProgressLoop } from './progress.js';

/** Options of {@link mpiCollective}. */
export interface MpiCollectiveOptions {
  /** File of the MPI library. Default: the environment's `TINYFUSION_MPI_LIBRARY`, or the system's, of the launcher's kind. */
  library?: string | undefined;
}

/**
 * The processes that mpirun, mpiexec or srun has started together, over the system's MPI: Open MPI, or MPICH and its
 * descendants. Calls do not block: they go on between turns of the event loop.
 *
 * A rank that ends before it has closed its collective, by an error or otherwise, ends the whole job with its name and a
 * code that is not 0: the others would wait for it for ever.
 *
 * @throws BackendError where there is no MPI, where it is another one than the launcher's, or where it was shut down before
 */
export async function mpiCollective({ library: path = process.env['TINYFUSION_MPI_LIBRARY'] }: MpiCollectiveOptions = {}): Promise<Collective> {
  const library = await loadMpi(path);
  const mpi = bind(library);
  mpi.init();
  const [rank, size] = [mpi.rank(), mpi.size()];
  const launch = launchedByMpi();
  if (launch !== undefined && launch.size !== size) {
    mpi.finalize();
    throw new BackendError(`the launcher started ${launch.size} processes (${launch.variable}), but ${library.name} (${library.version.split('\n')[0]}) sees ${size}: they are of different MPIs, or the launcher does not speak to this one (srun: try --mpi=pmix or --mpi=pmi2). Use its own mpirun, or set TINYFUSION_MPI_LIBRARY to the launcher's library`);
  }
  const watch = endJobUnlessClosed(mpi, rank, size);
  const loop = new ProgressLoop();
  const inPieces = async <A extends CollectiveArray>(values: A, begin: (piece: A) => Begun): Promise<void> => {
    const pieces: Promise<void>[] = [];
    for (let at = 0; at < values.length; at += MOST_ELEMENTS) pieces.push(loop.finish(begin(values.subarray(at, at + MOST_ELEMENTS) as A)));
    await Promise.all(pieces);
  };
  return {
    rank,
    size,
    allReduce: async (values, how) => {
      // MPI's maximum may leave NaN out, its sum does not
      const lacking = how === 'max' ? values.map((v) => (Number.isNaN(v) ? v : 0)) : undefined;
      const reduced = [inPieces(values, (piece) => mpi.allReduce(piece, how === 'max' ? 'max' : 'sum'))];
      if (lacking !== undefined) reduced.push(inPieces(lacking, (piece) => mpi.allReduce(piece, 'sum')));
      await Promise.all(reduced);
      for (const [i, v] of lacking?.entries() ?? []) if (Number.isNaN(v)) values[i] = v;
      if (how === 'mean') for (let i = 0; i < values.length; i++) values[i] = values[i]! / size;
    },
    broadcast: (values) => inPieces(values, (piece) => mpi.broadcast(piece)),
    barrier: () => loop.finish(mpi.barrier()),
    close: async () => {
      await loop.finish(mpi.barrier());
      watch.end();
      mpi.finalize();
    },
  };
}

/** Aborts the job when this process ends, until `end()`. */
function endJobUnlessClosed(mpi: Mpi, rank: number, size: number): { end(): void } {
  let uncaught: unknown;
  const remember = (error: unknown): void => void (uncaught = error);
  const abort = (code: number): void => {
    // Node would print it only after this, when MPI has killed the process; and process.stderr may not have written by then
    const told = uncaught instanceof Error ? `${uncaught.stack ?? uncaught.message}\n` : uncaught === undefined ? '' : `${String(uncaught)}\n`;
    writeSync(2, `${told}error: rank ${rank} of ${size} ended with exit code ${code} before it had closed its collective; the job is ended on all ranks\n`);
    mpi.abort(code === 0 ? 1 : code);
  };
  process.once('exit', abort);
  process.on('uncaughtExceptionMonitor', remember);
  return {
    end: () => {
      process.off('exit', abort);
      process.off('uncaughtExceptionMonitor', remember);
    },
  };
}

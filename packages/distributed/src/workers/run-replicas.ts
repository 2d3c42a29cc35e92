import { ArgumentError, CancelledError, type LongTaskOptions, type TinyFusionError, throwIfCancelled } from '@tinyfusion/core';
import { failThread, threadMemory } from '@tinyfusion/train';
import { type StartedWorker, startWorker } from './start-worker.js';

/** Options of {@link runReplicas}. */
export interface RunReplicasOptions<D> extends LongTaskOptions {
  /** Threads. */
  size: number;
  /** Handed to every thread, as a structured clone. */
  workerData?: D;
  /** How long threads may take to end by themselves when the signal is aborted, ms. Default 5000. */
  grace?: number;
}

/** How long the failure that others fail by may take to arrive, ms. */
const FIRST_FAILURE = 200;

/**
 * Runs a module's `run` in worker threads that make up a collective: the same program on every rank, each with a backend
 * of its own. For data-parallel computing on one machine without MPI.
 *
 * @param module exports `run`, see {@link ReplicaModule}
 * @returns what each rank returned
 * @throws TinyFusionError `WORKER_FAILED` that names the rank that failed, after the others were ended; CancelledError
 */
export async function runReplicas<R, D = undefined>(module: URL, { size, workerData, grace = 5000, signal, onProgress }: RunReplicasOptions<D>): Promise<R[]> {
  if (!Number.isInteger(size) || size < 1) throw new ArgumentError('runReplicas: size', size, 'a positive number of threads');
  throwIfCancelled(signal, 'run');
  const memory = threadMemory(size);
  const results = new Map<number, R>();
  let workers: StartedWorker[] = [];
  let timer: NodeJS.Timeout | undefined;
  let abort = (): void => {};
  try {
    await new Promise<void>((resolve, reject) => {
      const fail = (rank: number, error: TinyFusionError): void => {
        if (signal?.aborted === true) return reject(new CancelledError('run'));
        // a rank that fails because another one did has nothing of its own to say
        if (error.code === 'RANK_FAILED') timer ??= setTimeout(() => reject(error), FIRST_FAILURE);
        else reject(error);
        failThread(memory, rank);
      };
      abort = () => {
        for (const worker of workers) worker.send({ abort: true });
        timer = setTimeout(() => reject(new CancelledError('run')), grace);
      };
      workers = Array.from({ length: size }, (_, rank) =>
        startWorker(
          `rank ${rank} of ${size}`,
          { module: module.href, data: workerData, replica: { rank, memory } },
          {
            onMessage: (message) => {
              if ('progress' in message) onProgress?.(message.progress);
              else if ('result' in message) {
                results.set(rank, message.result as R);
                if (results.size === size) resolve();
              }
            },
            onFailure: (error) => fail(rank, error),
          },
        ),
      );
      signal?.addEventListener('abort', abort, { once: true });
    });
  } finally {
    signal?.removeEventListener('abort', abort);
    clearTimeout(timer);
    await Promise.all(workers.map((worker) => worker.end()));
  }
  return Array.from({ length: size }, (_, rank) => results.get(rank)!);
}

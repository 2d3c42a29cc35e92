import { ArgumentError, CancelledError, type LongTaskOptions, type TinyFusionError, throwIfCancelled } from '@tinyfusion/core';
import { failThread, threadMemory } from '@tinyfusion/train';
import { type StartedWorker, startWorker } from './start-worker.js';

/** Options of {@link runReplicas}. */
export interface RunReplicasOptions<D> extends LongTaskOptions {
  /** Threads. */
  size: number;
  /** Handed to every thread, as a structured clone. */
  workerData?: D;
  /** How long threads may take to end by themselves when the signal is aborted or one of them has failed, ms. Default 5000. */
  grace?: number;
}

/**
 * Runs a module's `run` in worker threads that make up a collective: the same program on every rank, each with a backend
 * of its own. For data-parallel computing on one machine without MPI.
 *
 * @param module exports `run`, see {@link ReplicaModule}
 * @returns what each rank returned
 * @throws TinyFusionError `WORKER_FAILED` that names the rank that failed, or `RANK_FAILED` where one waits for another that
 * has returned; CancelledError; all when all threads have ended by themselves, or were after `grace`
 */
export async function runReplicas<R, D = undefined>(module: URL, { size, workerData, grace = 5000, signal, onProgress }: RunReplicasOptions<D>): Promise<R[]> {
  if (!Number.isInteger(size) || size < 1) throw new ArgumentError('runReplicas: size', size, 'a positive number of threads');
  throwIfCancelled(signal, 'run');
  const memory = threadMemory(size);
  const results = new Map<number, R>();
  const over = new Set<number>();
  let workers: StartedWorker[] = [];
  let timer: NodeJS.Timeout | undefined;
  let abort = (): void => {};
  try {
    await new Promise<void>((resolve, reject) => {
      /** Why the run ends without a result. */
      let reason: TinyFusionError | undefined;
      const settle = (): void => {
        if (results.size === size) resolve();
        else if (over.size === size) reject(reason!);
      };
      /** The others stop, and put their things in order, before they are ended. */
      const end = (why: TinyFusionError): void => {
        // a rank that fails because another one did has nothing of its own to say
        if (reason === undefined || (reason.code === 'RANK_FAILED' && why.code !== 'RANK_FAILED')) reason = why;
        for (const worker of workers) worker.send({ abort: true });
        timer ??= setTimeout(() => reject(reason!), grace);
        settle();
      };
      abort = () => end(new CancelledError('run'));
      workers = Array.from({ length: size }, (_, rank) =>
        startWorker(
          `rank ${rank} of ${size}`,
          { module: module.href, data: workerData, replica: { rank, memory } },
          {
            onMessage: (message) => {
              if ('progress' in message) onProgress?.(message.progress);
              else if ('result' in message) {
                results.set(rank, message.result as R);
                over.add(rank);
                settle();
              }
            },
            onFailure: (error) => {
              over.add(rank);
              failThread(memory, rank);
              end(error);
            },
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

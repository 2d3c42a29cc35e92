import { ArgumentError, CancelledError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { availableParallelism } from 'node:os';
import { type StartedWorker, startWorker } from './start-worker.js';

/** Options of {@link mapOverWorkers}. */
export interface MapOverWorkersOptions<D> extends LongTaskOptions {
  /** Threads. Default: one for each core, and no more than items. */
  workers?: number;
  /** Handed to every thread's `start`, as a structured clone. */
  workerData?: D;
  /** Seed of all items' streams; item i draws from stream i of it. */
  seed: number;
  /** Name of the task in progress events. Default `'map'`. */
  task?: string;
}

/**
 * Does the same with every item, spread over worker threads: who is free takes the next. Each item has a random stream of
 * its own, so that results do not depend on the number of threads. For drawing many images on one machine.
 *
 * @param module exports `start`, see {@link MappingModule}
 * @returns results in the order of the items
 * @throws TinyFusionError `WORKER_FAILED` that names the thread that failed; CancelledError
 */
export async function mapOverWorkers<I, R, D = undefined>(module: URL, items: readonly I[], { workers: wanted = availableParallelism(), workerData, seed, task = 'map', signal, onProgress }: MapOverWorkersOptions<D>): Promise<R[]> {
  if (!Number.isInteger(wanted) || wanted < 1) throw new ArgumentError('mapOverWorkers: workers', wanted, 'a positive number of threads');
  throwIfCancelled(signal, task);
  if (items.length === 0) return [];
  const results = new Map<number, R>();
  const count = Math.min(wanted, items.length);
  let started: StartedWorker[] = [];
  let abort = (): void => {};
  let next = 0;
  try {
    await new Promise<void>((resolve, reject) => {
      abort = () => reject(new CancelledError(task));
      signal?.addEventListener('abort', abort, { once: true });
      started = Array.from({ length: count }, (_, i) =>
        startWorker(
          `worker ${i} of ${count}`,
          { module: module.href, data: workerData, seed },
          {
            onMessage: (message) => {
              if ('progress' in message) return;
              if ('result' in message) {
                results.set(message.index, message.result as R);
                onProgress?.({ task, step: results.size, total: items.length, unit: 'item' });
                if (results.size === items.length) return resolve();
              }
              if (next < items.length) started[i]!.send({ item: items[next], index: next++ });
            },
            onFailure: reject,
          },
        ),
      );
    });
  } finally {
    signal?.removeEventListener('abort', abort);
    await Promise.all(started.map((worker) => worker.end()));
  }
  return items.map((_, i) => results.get(i)!);
}

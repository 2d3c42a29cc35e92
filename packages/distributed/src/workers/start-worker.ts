import { TinyFusionError } from '@tinyfusion/core';
import { Worker } from 'node:worker_threads';
import type { FromWorker, SentError, ToWorker, WorkerStart } from './protocol.js';

/** What is told of a thread. */
export interface WorkerEvents {
  onMessage(message: Exclude<FromWorker, { error: SentError }>): void;
  /** Called at most once: the thread threw, or ended without having been asked to. */
  onFailure(error: TinyFusionError): void;
}

/** A thread of ours. */
export interface StartedWorker {
  send(message: ToWorker): void;
  /** Ends it at once. */
  end(): Promise<void>;
}

/** Starts a thread on a module. @param name what it is called in errors, `'rank 1 of 2'` */
export function startWorker(name: string, start: WorkerStart, { onMessage, onFailure }: WorkerEvents): StartedWorker {
  const worker = new Worker(new URL('./worker-main.js', import.meta.url), { workerData: start, name });
  let over = false;
  const failed = ({ message, code }: SentError, cause: unknown): void => {
    if (over) return;
    over = true;
    onFailure(new TinyFusionError(code === 'CANCELLED' || code === 'RANK_FAILED' ? code : 'WORKER_FAILED', `${name} failed: ${message}`, { cause }));
  };
  worker.on('message', (message: FromWorker) => {
    if ('error' in message) failed(message.error, Object.assign(new Error(message.error.message), { stack: message.error.stack, code: message.error.code }));
    else onMessage(message);
  });
  worker.on('error', (error: Error & { code?: string }) => failed({ message: error.message, stack: error.stack, code: error.code }, error));
  worker.on('exit', (code) => failed({ message: `its thread ended with code ${code} before it had a result`, stack: undefined, code: undefined }, undefined));
  return {
    send: (message) => worker.postMessage(message),
    end: async () => {
      over = true;
      await worker.terminate();
    },
  };
}

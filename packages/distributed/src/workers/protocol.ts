import type { OnProgress, ProgressEvent, Rng } from '@tinyfusion/core';
import type { Collective } from '@tinyfusion/train';

/** What a module's `run` gets from {@link runReplicas}. */
export interface Replica<D = undefined> {
  readonly rank: number;
  readonly size: number;
  /** All threads of the run. */
  readonly collective: Collective;
  /** `workerData` of the options, a copy. */
  readonly data: D;
  /** Aborted when the caller's signal is, or another rank has failed. */
  readonly signal: AbortSignal;
  /** Reports to the caller; rank 0's reports alone are passed on. */
  readonly onProgress: OnProgress;
}

/** A module for {@link runReplicas}. */
export interface ReplicaModule<D, R> {
  /** Started once in every thread; what it returns is cloned back. */
  run(replica: Replica<D>): Promise<R>;
}

/** A module for {@link mapOverWorkers}. */
export interface MappingModule<D, I, R> {
  /** Started once in every thread: sets a backend, loads models; returns what is done with an item. `rng` depends on the item's place alone. */
  start(data: D): Promise<(item: I, rng: Rng) => Promise<R>>;
}

/** What a thread is started with. */
export interface WorkerStart {
  module: string;
  data: unknown;
  /** A replica's place and memory; absent for a thread that maps items. */
  replica?: { rank: number; memory: SharedArrayBuffer };
  /** Seed of the items' streams. */
  seed?: number;
}

/** What the caller sends. */
export type ToWorker = { abort: true } | { item: unknown; index: number };

/** What a thread sends. */
export type FromWorker = { ready: true } | { result: unknown; index: number } | { progress: ProgressEvent } | { error: SentError };

/** An error on its way between threads. */
export interface SentError {
  message: string;
  stack: string | undefined;
  code: string | undefined;
}

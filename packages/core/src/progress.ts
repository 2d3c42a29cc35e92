/** One report of a long task. Every task sends at least one event with `step === total` when it ends well. */
export interface ProgressEvent {
  /** What is running, in the words a person reads: `'learn masks'`. */
  readonly task: string;
  /** Units finished so far. */
  readonly step: number;
  /** Units in all, or `undefined` where that is not known. */
  readonly total?: number | undefined;
  /** What a unit is: `'step'`, `'image'`, `'byte'`. */
  readonly unit: string;
  /** Numbers worth showing, e.g. `{ loss: 0.12 }`. */
  readonly values?: Readonly<Record<string, number>> | undefined;
  /** A line of text worth showing, e.g. the current decision. */
  readonly note?: string | undefined;
}

/** Receives progress. Must not throw. */
export type OnProgress = (event: ProgressEvent) => void;

/** What every long task accepts. */
export interface LongTaskOptions {
  /** Ends the task with a `CancelledError` at the next step. */
  signal?: AbortSignal | undefined;
  /** Called after every unit of work. */
  onProgress?: OnProgress | undefined;
}

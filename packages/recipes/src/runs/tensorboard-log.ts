import { CheckpointError } from '@tinyfusion/core';
import { makeFolder } from '@tinyfusion/weights/node';
import { open, type FileHandle } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { type SummaryValue, type TensorBoardEvent, tensorBoardRecord } from './tensorboard-event.js';

/** A run's numbers and samples as TensorBoard reads them, beside `events.jsonl`. Each start of the run is a file. */
export class TensorBoardLog {
  readonly #handle: FileHandle;
  #waiting: Uint8Array[] = [];

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** @param step steps done: what earlier files say of later ones is dropped by TensorBoard */
  static async open(folder: string, step: number): Promise<TensorBoardLog> {
    await makeFolder(folder);
    const log = new TensorBoardLog(await open(join(folder, `events.out.tfevents.${Math.floor(Date.now() / 1000)}.${hostname()}.${process.pid}.${step}`), 'a'));
    log.#put({ fileVersion: 'brain.Event:2' });
    if (step > 0) log.#put({ step: step + 1, restarted: true });
    return log;
  }

  /** Adds values of a step; they are on disk when {@link TensorBoardLog.flush} has ended. */
  add(step: number, values: readonly SummaryValue[]): void {
    if (values.length > 0) this.#put({ step, values });
  }

  /** @throws CheckpointError where the disk is full */
  async flush(): Promise<void> {
    const waiting = this.#waiting;
    this.#waiting = [];
    if (waiting.length === 0) return;
    try {
      await this.#handle.appendFile(Buffer.concat(waiting));
    } catch (cause) {
      throw new CheckpointError(`the run's events cannot be written: ${(cause as Error).message}`, { cause });
    }
  }

  async close(): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#handle.close();
    }
  }

  #put(event: Omit<TensorBoardEvent, 'wallTime'>): void {
    this.#waiting.push(tensorBoardRecord({ wallTime: Date.now() / 1000, ...event }));
  }
}

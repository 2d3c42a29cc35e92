import { CheckpointError, type ProgressEvent } from '@tinyfusion/core';
import { writeFileAtomic } from '@tinyfusion/weights/node';
import { type FileHandle, open, readFile } from 'node:fs/promises';

/** A line of `events.jsonl`. */
export interface RunEvent {
  /** Steps done. */
  step: number;
  task: string;
  /** Milliseconds since 1970. */
  time: number;
  /** In the last step of a run, be it before all that were asked for. */
  done?: boolean;
  values: Record<string, number | string>;
}

/** Every step of a run, a JSON object a line; numbers that are not finite are strings. */
export class EventLog {
  readonly #handle: FileHandle;
  #buffer = '';
  #flushed = performance.now();
  #writing: Promise<void> = Promise.resolve();

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** Opens a log to go on after `step`: later lines, and one that was cut off, are dropped. */
  static async open(path: string, step: number): Promise<EventLog> {
    const kept = (await readEvents(path)).filter((event) => event.step <= step);
    await writeFileAtomic(path, kept.map((event) => `${JSON.stringify(event)}\n`).join(''));
    return new EventLog(await open(path, 'a'));
  }

  /** Adds a step. It is on disk a second later, or when {@link EventLog.flush} has ended. */
  add({ step, total, task, values = {} }: ProgressEvent): void {
    const event: RunEvent = { step, task, time: Date.now(), ...(step === total ? { done: true } : {}), values: Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number.isFinite(value) ? value : String(value)])) };
    this.#buffer += `${JSON.stringify(event)}\n`;
  }

  /** Writes what was added where it has waited for a second. */
  async tick(): Promise<void> {
    if (performance.now() - this.#flushed > 1000) await this.flush();
  }

  /** @throws CheckpointError where the disk is full */
  async flush({ sync = false } = {}): Promise<void> {
    const text = this.#buffer;
    this.#buffer = '';
    this.#flushed = performance.now();
    // in the order of the calls
    const before = this.#writing;
    this.#writing = (async () => {
      await before.catch(() => {}); // told to whoever asked for it
      if (text !== '') await this.#handle.appendFile(text);
      if (sync) await this.#handle.sync();
    })();
    try {
      await this.#writing;
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
}

/** The lines of a log that are whole; none where there is no log. @throws CheckpointError where it cannot be read */
export async function readEvents(path: string): Promise<RunEvent[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    throw new CheckpointError(`${path} cannot be read: ${message}`, { cause });
  }
  return text.split('\n').flatMap((line) => {
    try {
      const event = JSON.parse(line) as RunEvent;
      return typeof event.step === 'number' ? [event] : [];
    } catch {
      return [];
    }
  });
}

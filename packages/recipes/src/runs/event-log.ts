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
    const earlier = await readEvents(path);
    const kept = earlier.filter((event) => event.step <= step);
    if (earlier.length > 0 || kept.length > 0) await writeFileAtomic(path, kept.map((event) => `${JSON.stringify(event)}\n`).join(''));
    return new EventLog(await open(path, 'a'));
  }

  /** Adds a step. It is on disk a second later, or when {@link EventLog.flush} has ended. */
  add({ step, task, values = {} }: ProgressEvent): void {
    const event: RunEvent = { step, task, time: Date.now(), values: Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number.isFinite(value) ? value : String(value)])) };
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

/** The lines of a log that are whole; none where there is no log. */
export async function readEvents(path: string): Promise<RunEvent[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch {
    return [];
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

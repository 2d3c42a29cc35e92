import { open } from 'node:fs/promises';
import type { RunEvent } from '../runs/event-log.js';

/** The lines of a log that is being written, read as they come. */
export class GrowingLog {
  readonly events: RunEvent[] = [];
  #read = 0;
  #rest = '';
  #reading: Promise<void> = Promise.resolve();

  constructor(readonly path: string) {}

  /** Takes in what is new; all of it where the log was cut, as a run that goes on does. */
  refresh(): Promise<void> {
    // one after another: two pages may ask at once
    return (this.#reading = this.#reading.catch(() => {}).then(() => this.#takeIn()));
  }

  async #takeIn(): Promise<void> {
    const handle = await open(this.path).catch(() => undefined);
    if (handle === undefined) return;
    try {
      const { size } = await handle.stat();
      if (size < this.#read) {
        [this.#read, this.#rest] = [0, ''];
        this.events.length = 0;
      }
      const bytes = Buffer.alloc(size - this.#read);
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, this.#read);
      this.#read += bytesRead;
      const lines = (this.#rest + bytes.toString('utf8', 0, bytesRead)).split('\n');
      this.#rest = lines.pop()!;
      for (const line of lines) {
        const event = parsed(line);
        if (event === undefined) continue;
        // a log that was written anew may have become as long as it was
        while (this.events.length > 0 && this.events.at(-1)!.step >= event.step) this.events.pop();
        this.events.push(event);
      }
    } finally {
      await handle.close();
    }
  }
}

function parsed(line: string): RunEvent | undefined {
  try {
    const event = JSON.parse(line) as RunEvent;
    return typeof event.step === 'number' && typeof event.values === 'object' ? event : undefined;
  } catch {
    return undefined;
  }
}

import { CheckpointError } from '@tinyfusion/core';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunEvent } from '../runs/event-log.js';
import { holderOf } from '../runs/run-lock.js';
import { GrowingLog } from './growing-log.js';

/** What is known of a run at a moment. */
export interface RunState {
  command: string;
  identity: Readonly<Record<string, unknown>>;
  /** Who writes the folder now. */
  writer: { pid: number; host: string } | undefined;
  events: readonly RunEvent[];
  layers: readonly RunEvent[];
  /** Files of pictures, the newest first. */
  samples: readonly string[];
  best: { step: number; value: number } | undefined;
}

/** A run's folder as somebody looks at it: it is read, never written. */
export class RunView {
  readonly #events: GrowingLog;
  readonly #layers: GrowingLog;

  private constructor(
    readonly path: string,
    readonly description: { command: string; identity: Readonly<Record<string, unknown>> },
  ) {
    this.#events = new GrowingLog(join(path, 'events.jsonl'));
    this.#layers = new GrowingLog(join(path, 'layers.jsonl'));
  }

  /** @throws CheckpointError where the folder holds no run */
  static async open(path: string): Promise<RunView> {
    try {
      const { command, identity } = Object(JSON.parse(await readFile(join(path, 'run.json'), 'utf8'))) as Partial<RunView['description']>;
      return new RunView(path, { command: command ?? '', identity: identity ?? {} });
    } catch (cause) {
      throw new CheckpointError(`${path} holds no run: ${reasonOf(cause as NodeJS.ErrnoException)}. Name the folder of --run, or of train --out`, { cause });
    }
  }

  async state(): Promise<RunState> {
    await Promise.all([this.#events.refresh(), this.#layers.refresh()]);
    const names = await readdir(this.path).catch(() => []);
    const best = await readFile(join(this.path, 'best.json'), 'utf8').then((text) => JSON.parse(text) as RunState['best'], () => undefined);
    return { ...this.description, writer: await holderOf(this.path), events: this.#events.events, layers: this.#layers.events, samples: names.filter((name) => isSample(name)).toSorted().toReversed(), best };
  }
}

function reasonOf(cause: NodeJS.ErrnoException): string {
  const { code, message } = cause;
  if (code === 'ENOENT') return 'it has no run.json';
  if (cause instanceof SyntaxError) return 'its run.json is no JSON';
  return code === 'ENOTDIR' ? 'it is a file' : code === 'EISDIR' ? 'its run.json is a folder' : message;
}

/** Whether a name is one of a run's pictures. */
export const isSample = (name: string): boolean => /^samples-\d{6,}\.png$/.test(name);

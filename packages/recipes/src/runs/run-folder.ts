import { ArgumentError, CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import type { StateDict } from '@tinyfusion/weights';
import { makeFolder, openCheckpoint, syncFolder, writeCheckpoint, writeFileAtomic } from '@tinyfusion/weights/node';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Checkpointing } from '../checkpointing.js';
import { EventLog } from './event-log.js';
import type { SummaryValue } from './tensorboard-event.js';
import { TensorBoardLog } from './tensorboard-log.js';
import { lockFolder } from './run-lock.js';

/** What makes two runs the same: options, and hashes of models and data. */
export type RunIdentity = Readonly<Record<string, string | number | boolean | readonly (string | number)[] | null>>;

/** Options of {@link RunFolder.open}. */
export interface RunFolderOptions {
  /** The command as it was typed. */
  command: string;
  /** Steps between saves. Default 100. */
  every?: number;
  /** How many of the last saves are kept. Default 3. */
  last?: number;
  /** Saves whose step is a multiple of this are kept too. Default: none. */
  keepEvery?: number;
}

/** Options of {@link RunFolder.checkpointing}. */
export interface KeptOptions<T> {
  /** Name of the value whose mean since the last save is to be small for the best result. Default: no best is kept. */
  metric?: string;
  /** Name of the result's file. Default `'model.safetensors'`. */
  name?: string;
  /** Draws what the result so far makes, at saves whose step is a multiple of `every`. Default: nothing is drawn. */
  samples?: { every: number; draw: (result: T) => Promise<{ png: Uint8Array; width: number; height: number; channels: number }> } | undefined;
}

interface Logs {
  steps: EventLog;
  layers: EventLog;
  board: TensorBoardLog;
}

const scalars = (values: Readonly<Record<string, number>> = {}): SummaryValue[] => Object.entries(values).map(([name, scalar]) => ({ tag: name.replaceAll(' ', '/'), scalar }));

type Rules = Required<Pick<RunFolderOptions, 'every' | 'last'>> & Pick<RunFolderOptions, 'keepEvery'>;

/**
 * A folder that a run is kept in, so that it can be killed at any moment and goes on:
 *
 * - `run.json`: which run it is. Another one is refused where steps are saved
 * - `step-000500-1a2b3c4d.safetensors`: saved runs, with a part of the file's SHA-256; written beside, synced and renamed.
 *   One that is damaged is set aside, and the one before it is used
 * - `model.safetensors`, `best.safetensors`: the result so far, and the best by the metric that the recipe is given (of mask
 *   learning `masks.json`)
 * - `events.jsonl`: every step's numbers; `layers.jsonl`: numbers of each layer, every tenth of the way to the next save
 * - `tensorboard/`: the same, for TensorBoard
 * - `samples-000500.png`: what the result so far draws, where that is asked for
 * - `lock`: who writes it
 */
export class RunFolder {
  readonly path: string;
  readonly #options: Rules;
  readonly #unlock: () => Promise<void>;
  readonly #resume: { step: number; state: StateDict & AsyncDisposable } | undefined;
  readonly #logs: Logs;
  #recent: number[] = [];

  private constructor(path: string, options: Rules, unlock: () => Promise<void>, resume: { step: number; state: StateDict & AsyncDisposable } | undefined, logs: Logs) {
    this.path = path;
    this.#options = options;
    this.#unlock = unlock;
    this.#resume = resume;
    this.#logs = logs;
  }

  /**
   * Opens a folder for a run, new or to go on with.
   * @throws CheckpointError where it holds another run, or another process writes it
   */
  static async open(path: string, identity: RunIdentity, { command, every = 100, last = 3, keepEvery }: RunFolderOptions): Promise<RunFolder> {
    for (const [name, value] of Object.entries({ every, last, keepEvery: keepEvery ?? 1 })) if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`RunFolderOptions.${name}`, value, 'a positive integer');
    await makeFolder(path);
    const unlock = await lockFolder(path);
    try {
      await checkIdentity(path, identity, command);
      await removeParts(path);
      const resume = await newest(path);
      const step = resume?.step ?? 0;
      const logs: Logs = { steps: await EventLog.open(join(path, 'events.jsonl'), step), layers: await EventLog.open(join(path, 'layers.jsonl'), step), board: await TensorBoardLog.open(join(path, 'tensorboard'), step) };
      return new RunFolder(path, { every, last, ...(keepEvery === undefined ? {} : { keepEvery }) }, unlock, resume, logs);
    } catch (error) {
      await unlock();
      throw error;
    }
  }

  /** Steps that were done before. */
  get step(): number {
    return this.#resume?.step ?? 0;
  }

  /**
   * Options for a recipe: from where it goes on, and where it is kept.
   * @param store makes the result's file
   * @throws ArgumentError where samples are asked for at steps that are not saved
   */
  checkpointing<T>(store: (result: T) => Promise<Uint8Array>, { signal, onProgress }: LongTaskOptions, { metric, name = 'model.safetensors', samples }: KeptOptions<T> = {}): Checkpointing<T> & LongTaskOptions {
    const { every } = this.#options;
    if (samples !== undefined && samples.every % every !== 0) throw new ArgumentError('steps between samples', samples.every, `a multiple of the ${every} steps between saves`);
    const detailEvery = Math.max(1, Math.floor(every / 10));
    const { steps, layers, board } = this.#logs;
    return {
      signal,
      resume: this.#resume?.state,
      onProgress: (event) => {
        onProgress?.(event);
        if (event.unit !== 'step') return;
        steps.add(event);
        board.add(event.step, scalars(event.values));
        // a step that was skipped says nothing of the others
        const value = metric === undefined ? undefined : event.values?.[metric];
        if (value !== undefined && Number.isFinite(value)) this.#recent.push(value);
        void this.#tick().catch(() => {}); // the next save says what is wrong
      },
      onDetail: (step, values) => {
        if (step % detailEvery !== 0 && step !== 1) return;
        layers.add({ step, task: 'layers', unit: 'step', values });
        board.add(step, scalars(values));
      },
      checkpoint: {
        every,
        save: async (result, step, run) => {
          await this.#save(step, run, name, await store(result));
          if (samples === undefined || step % samples.every !== 0) return;
          const { png, ...size } = await samples.draw(result);
          await writeFileAtomic(join(this.path, `samples-${String(step).padStart(6, '0')}.png`), png);
          board.add(step, [{ tag: 'samples', image: { ...size, png } }]);
          await board.flush();
        },
      },
    };
  }

  async #tick(): Promise<void> {
    await Promise.all([this.#logs.steps.tick(), this.#logs.layers.tick()]);
  }

  async #flush(): Promise<void> {
    await Promise.all([this.#logs.steps.flush({ sync: true }), this.#logs.layers.flush({ sync: true }), this.#logs.board.flush()]);
  }

  async #save(step: number, run: StateDict, name: string, result: Uint8Array): Promise<void> {
    // what the run went on from has been read, and may be among the saves that are no longer kept
    await this.#resume?.state[Symbol.asyncDispose]();
    await this.#flush();
    await writeFileAtomic(join(this.path, name), result);
    await this.#keepBest(step, result);
    // the last file: a run that is killed before it does these steps again, and all of the above with them
    const saved = join(this.path, `step-${String(step).padStart(6, '0')}`);
    await writeCheckpoint(`${saved}.new.safetensors`, run);
    await rename(`${saved}.new.safetensors`, `${saved}-${await digest(`${saved}.new.safetensors`)}.safetensors`);
    await syncFolder(this.path);
    const saves = await savesIn(this.path);
    const { last, keepEvery } = this.#options;
    for (const save of saves.slice(0, -last)) if (keepEvery === undefined || save.step % keepEvery !== 0) await rm(join(this.path, save.name), { force: true });
  }

  async #keepBest(step: number, result: Uint8Array): Promise<void> {
    if (this.#recent.length === 0) return;
    const value = this.#recent.reduce((a, b) => a + b, 0) / this.#recent.length;
    this.#recent = [];
    const path = join(this.path, 'best.json');
    const earlier = await readFile(path, 'utf8').then(
      (text) => JSON.parse(text) as { step: number; value: number },
      () => undefined,
    );
    // a run that goes on may meet a best of steps that it has yet to do again: that was better than all before it
    if (earlier !== undefined && (earlier.step > step || (earlier.step < step && earlier.value <= value))) return;
    await writeFileAtomic(join(this.path, 'best.safetensors'), result);
    await writeFileAtomic(path, JSON.stringify({ step, value }));
  }

  /** Lets others write the folder. */
  async close(): Promise<void> {
    const { steps, layers, board } = this.#logs;
    await this.#resume?.state[Symbol.asyncDispose]();
    const ends = await Promise.allSettled([steps.close(), layers.close(), board.close()]);
    await this.#unlock();
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The first half word of a file's SHA-256. */
async function digest(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 2 ** 20 }), hash);
  return hash.digest('hex').slice(0, 8);
}

/** Saved runs by step, the newest last. */
async function savesIn(path: string): Promise<{ name: string; step: number; hash: string }[]> {
  const found = (await readdir(path)).flatMap((name) => {
    const match = /^step-(\d+)-([0-9a-f]{8})\.safetensors$/.exec(name);
    return match === null ? [] : [{ name, step: Number(match[1]), hash: match[2]! }];
  });
  return found.toSorted((a, b) => a.step - b.step);
}

/** The newest save that is as it was written; damaged ones are set aside. */
async function newest(path: string): Promise<{ step: number; state: StateDict & AsyncDisposable } | undefined> {
  for (const { name, step, hash } of (await savesIn(path)).toReversed()) {
    const file = join(path, name);
    if ((await digest(file)) === hash) return { step, state: await openCheckpoint(file) };
    await rename(file, `${file}.damaged`);
    console.error(`note: ${file} is damaged and was set aside as ${name}.damaged; the run goes on from the save before it`);
  }
  return undefined;
}

/** Files that a killed process was writing. */
async function removeParts(path: string): Promise<void> {
  for (const name of await readdir(path)) if (/\.[0-9a-f]{8}\.part$|^step-\d+\.new\.safetensors$/.test(name)) await rm(join(path, name), { force: true });
}

async function checkIdentity(folder: string, identity: RunIdentity, command: string): Promise<void> {
  const path = join(folder, 'run.json');
  const text = await readFile(path, 'utf8').catch(() => undefined);
  const begin = (): Promise<void> => writeFileAtomic(path, `${JSON.stringify({ version: 1, identity, command, started: new Date().toISOString() }, null, 2)}\n`);
  if (text === undefined) return begin();
  let stored: { identity?: RunIdentity };
  try {
    stored = JSON.parse(text) as { identity?: RunIdentity };
  } catch (cause) {
    throw new CheckpointError(`${path} is no description of a run; use another folder`, { cause });
  }
  const before = stored.identity ?? {};
  const different = [...new Set([...Object.keys(before), ...Object.keys(identity)])].filter((name) => JSON.stringify(before[name]) !== JSON.stringify(identity[name]));
  if (different.length === 0) return;
  if ((await savesIn(folder)).length === 0) {
    // a run that was refused, or ended before its first save, is in nobody's way; nor is a best of it
    for (const name of ['best.json', 'best.safetensors']) await rm(join(folder, name), { force: true });
    return begin();
  }
  const told = different.map((name) => `${name} was ${JSON.stringify(before[name] ?? null)} and is ${JSON.stringify(identity[name] ?? null)}`);
  throw new CheckpointError(`${path} is of another run: ${told.join('; ')}. Give the same options and data to go on, or another folder to start anew`);
}

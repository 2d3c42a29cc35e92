import { ArgumentError, DataError } from '@tinyfusion/core';
import { type WritableTensor, safetensorsHeader } from '@tinyfusion/weights';
import { fileSource, makeFolder, writeAtomic, writeFileAtomic } from '@tinyfusion/weights/node';
import { readSafetensors } from '@tinyfusion/weights';
import { constants } from 'node:fs';
import { type FileHandle, open, readFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type PackDescription, type PackInfo, readPackInfo, shardName, viewBytes } from './pack-info.js';
import { type PackItem, itemsOf, recordBytes, recordsOf, viewCrc } from './pack-record.js';

/**
 * Writes a pack: a folder of shards, each a safetensors file that other tools read too:
 *
 * - `items`: `[n, views, H, W, C]`, U8 of images, F16 of latents
 * - `labels`: I32 `[n]`, `places`: I32 `[n]`, where each was in the source
 * - `crc32`: U32 `[n, views]`, of each view with its label: readers check what they read
 *
 * and `pack.json`, which says that it is whole. What is added is on disk when `add` has ended: a process that was killed
 * goes on from there. A folder is written by one process at a time.
 */
export class PackWriter {
  readonly #folder: string;
  readonly #info: PackInfo;
  readonly #size: number;
  #shards: number;
  #waiting: PackItem[];
  #part: FileHandle;
  #next: number;

  private constructor(folder: string, info: PackInfo, at: { shards: number; next: number; waiting: PackItem[]; part: FileHandle }) {
    this.#folder = folder;
    this.#info = info;
    this.#size = info.views * viewBytes(info);
    this.#shards = at.shards;
    this.#next = at.next;
    this.#waiting = at.waiting;
    this.#part = at.part;
  }

  /**
   * Opens a folder for a new pack, or for one to go on with.
   * @throws DataError where it holds another pack, or files of something else
   */
  static async open(folder: string, description: PackDescription): Promise<PackWriter> {
    const { perShard, shape, views } = description;
    if (!Number.isInteger(perShard) || perShard < 1) throw new ArgumentError('PackDescription.perShard', perShard, 'a positive integer');
    const info: PackInfo = { version: 1, ...description, shape: [...shape] as [number, number, number], classNames: [...description.classNames] };
    const earlier = await readPackInfo(folder);
    if (earlier === undefined) {
      await makeFolder(folder);
      const others = (await readdir(folder)).filter((name) => name !== 'lock');
      if (others.length > 0) throw new DataError(`${folder} is no pack and not empty (${others.slice(0, 3).join(', ')}); give a new folder`);
      await writeFileAtomic(join(folder, 'pack.json'), `${JSON.stringify(info)}\n`);
    } else checkSame(folder, earlier, info);
    const size = views * viewBytes(info);
    let [shards, next] = [0, 0];
    for (; await exists(join(folder, shardName(shards))); shards++) next = 1 + (await lastPlace(join(folder, shardName(shards))));
    // of shards that are whole, and of writes that were cut off
    for (const name of await readdir(folder)) if (name.endsWith('.part') && name !== partName(shards)) await rm(join(folder, name), { force: true });
    const path = join(folder, partName(shards));
    const bytes = earlier?.count !== undefined ? new Uint8Array() : await readFile(path).catch(() => new Uint8Array());
    const waiting = itemsOf(bytes, size);
    const part = await openPart(path);
    await part.truncate(recordBytes(waiting.length, size));
    return new PackWriter(folder, earlier ?? info, { shards, next: waiting.length > 0 ? waiting.at(-1)!.place + 1 : next, waiting, part });
  }

  /** Whether all is there: nothing is left to add. */
  get complete(): boolean {
    return this.#info.count !== undefined;
  }

  /** Samples so far. */
  get count(): number {
    return this.#info.count ?? this.#shards * this.#info.perShard + this.#waiting.length;
  }

  /** The place in the source to go on from. */
  get next(): number {
    return this.#next;
  }

  /**
   * Adds samples, which are on disk when this has ended. Their arrays are read again when a shard is closed: give each its own.
   * @throws DataError where one does not fit, when none is added, or the disk is full: go on from `next`; ArgumentError where
   * places do not grow, or the pack is complete
   */
  async add(items: readonly PackItem[]): Promise<void> {
    if (this.complete) throw new ArgumentError('PackWriter.complete', true, 'false: a pack that is whole takes no more; make another in a new folder');
    let next = this.#next;
    for (const { bytes, label, place } of items) {
      if (bytes.length !== this.#size) throw new DataError(`sample ${place} has ${bytes.length} bytes, expected ${this.#size}`);
      if (!Number.isInteger(label) || label < 0 || label >= this.#info.classNames.length) throw new DataError(`sample ${place} has label ${label}, expected 0 to ${this.#info.classNames.length - 1}`);
      if (!Number.isInteger(place) || place < next) throw new ArgumentError('PackItem.place', place, `an integer of ${next} or more: places grow`);
      next = place + 1;
    }
    for (let at = 0; at < items.length; ) {
      const fits = items.slice(at, at + this.#info.perShard - this.#waiting.length);
      await this.#append(fits);
      at += fits.length;
      if (this.#waiting.length === this.#info.perShard) await this.#closeShard();
    }
  }

  /** Writes what waits, and that the pack is whole. @throws DataError where there is no sample */
  async finish(): Promise<void> {
    if (this.complete) return;
    const { count } = this;
    if (count === 0) throw new DataError(`${this.#folder} would be an empty pack: the source has no sample that can be read`);
    if (this.#waiting.length > 0) await this.#closeShard();
    await writeFileAtomic(join(this.#folder, 'pack.json'), `${JSON.stringify({ ...this.#info, count })}\n`);
    this.#info.count = count;
  }

  async close(): Promise<void> {
    await this.#part.close();
    if (this.complete) await rm(join(this.#folder, partName(this.#shards)), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #closeShard(): Promise<void> {
    const { kind, shape, views } = this.#info;
    const items = this.#waiting;
    const view = this.#size / views;
    const crcs = items.flatMap(({ bytes, label }) => Array.from({ length: views }, (_, v) => viewCrc(bytes.subarray(v * view, (v + 1) * view), label)));
    const n = items.length;
    const numbers: [string, WritableTensor][] = [
      ['labels', { dtype: 'I32', shape: [n], bytes: new Uint8Array(Int32Array.from(items, ({ label }) => label).buffer) }],
      ['places', { dtype: 'I32', shape: [n], bytes: new Uint8Array(Int32Array.from(items, ({ place }) => place).buffer) }],
      ['crc32', { dtype: 'U32', shape: [n, views], bytes: new Uint8Array(Uint32Array.from(crcs).buffer) }],
    ];
    const all = { dtype: kind === 'images' ? ('U8' as const) : ('F16' as const), shape: [n, views, ...shape] };
    await writeAtomic(join(this.#folder, shardName(this.#shards)), async (handle) => {
      await handle.writeFile(safetensorsHeader([...numbers, ['items', all]]));
      for (const [, { bytes }] of numbers) await handle.writeFile(bytes);
      for (const { bytes } of items) await handle.writeFile(bytes);
    });
    await this.#part.close();
    await rm(join(this.#folder, partName(this.#shards)), { force: true });
    this.#shards += 1;
    this.#waiting = [];
    this.#part = await openPart(join(this.#folder, partName(this.#shards)));
  }

  async #append(items: readonly PackItem[]): Promise<void> {
    const records = recordsOf(items, this.#size);
    const end = recordBytes(this.#waiting.length, this.#size);
    try {
      for (let at = 0; at < records.length; ) at += (await this.#part.write(records, at, records.length - at, end + at)).bytesWritten;
    } catch (cause) {
      await this.#part.truncate(end).catch(() => {}); // what is left over is cut off by the next to open it
      const full = (cause as NodeJS.ErrnoException).code === 'ENOSPC';
      throw new DataError(`${this.#folder} cannot be written: ${full ? 'the disk is full; make room, and the same command goes on from here' : (cause as Error).message}`, { cause });
    }
    this.#waiting.push(...items);
    const last = items.at(-1);
    if (last !== undefined) this.#next = last.place + 1;
  }
}

/** Opens a file to write into, whether it is there or not; not to append, as Windows shortens no file that is open so. */
const openPart = (path: string): Promise<FileHandle> => open(path, constants.O_WRONLY | constants.O_CREAT);

const partName = (index: number): string => `${shardName(index)}.part`;

async function exists(path: string): Promise<boolean> {
  try {
    await using _ = await fileSource(path);
    return true;
  } catch {
    return false;
  }
}

async function lastPlace(path: string): Promise<number> {
  await using source = await fileSource(path);
  const places = (await readSafetensors(source)).tensors.get('places');
  if (places === undefined) throw new DataError(`${path} is no shard of a pack; make the pack again in a new folder`);
  return new Int32Array((await places.read()).slice().buffer).at(-1)!;
}

function checkSame(folder: string, before: PackInfo, now: PackInfo): void {
  const { count: _, source: wasMadeOf, ...was } = before;
  const { source, ...is } = now;
  const all = (info: object, from: object): Record<string, unknown> => ({ ...info, ...from });
  const [a, b] = [all(was, wasMadeOf), all(is, source)];
  const different = [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((name) => JSON.stringify(a[name]) !== JSON.stringify(b[name]));
  if (different.length === 0) return;
  throw new DataError(`${folder} is another pack: ${different.map((name) => `${name} was ${short(a[name])} and is ${short(b[name])}`).join('; ')}. Give the same source and options to go on, or another folder`);
}

function short(value: unknown): string {
  const text = JSON.stringify(value ?? null);
  return text.length > 80 ? `${text.slice(0, 77)}…` : text;
}

import { ArgumentError, DataError } from '@tinyfusion/core';
import { type StateDict, type TensorRecord, readSafetensors } from '@tinyfusion/weights';
import { type FileSource, fileSource } from '@tinyfusion/weights/node';
import { createHash } from 'node:crypto';
import { closeSync, open as openFile, read as readFile, readSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type PackInfo, readPackInfo, shardName, viewBytes } from './pack-info.js';
import { viewCrc } from './pack-record.js';

/** Which view of which sample. */
export interface PackPick {
  index: number;
  /** 0 plain, 1 flipped. Default 0. */
  view?: number;
}

interface Shard {
  path: string;
  descriptor: number;
  /** Where its first item begins. */
  start: number;
}

/**
 * A pack of samples on disk, see `PackWriter`: any of them in any order. Labels and checksums are in memory, 12 bytes a sample
 * with two views; samples are read when they are asked for, and are what was written or an error.
 */
export class Pack {
  readonly info: Readonly<PackInfo>;
  readonly count: number;
  /** `[count]`. */
  readonly labels: Int32Array;
  /** SHA-256 over layout, labels and checksums: another pack, or one whose samples were changed, has another. */
  readonly fingerprint: string;
  /** Bytes of a view. */
  readonly viewBytes: number;
  readonly #shards: readonly Shard[];
  readonly #crcs: Uint32Array;
  #closed = false;
  #reading = 0;

  private constructor(info: PackInfo, shards: readonly Shard[], labels: Int32Array, crcs: Uint32Array) {
    this.info = info;
    this.count = labels.length;
    this.labels = labels;
    this.viewBytes = viewBytes(info);
    this.#shards = shards;
    this.#crcs = crcs;
    const { kind, shape, views, classNames } = info;
    this.fingerprint = createHash('sha256').update(JSON.stringify({ kind, shape, views, classNames })).update(bytesOf(labels)).update(bytesOf(crcs)).digest('hex');
  }

  /** @throws DataError where there is no pack, it is not whole, or a shard is missing or of another size */
  static async open(folder: string): Promise<Pack> {
    const info = await readPackInfo(folder);
    if (info === undefined) throw new DataError(`${folder} is no pack: it has no pack.json. Make one with tinyfusion pack`);
    const { count, views, perShard } = info;
    if (count === undefined) throw new DataError(`${folder} is not whole yet; give the command that makes it once more, and it goes on`);
    const shards: Shard[] = [];
    const [labels, crcs] = [new Int32Array(count), new Uint32Array(count * views)];
    try {
      for (let at = 0; at < count; at += perShard) {
        const n = Math.min(perShard, count - at);
        const path = join(folder, shardName(shards.length));
        await using source = await fileSource(path).catch((cause: Error) => {
          throw new DataError(`${folder}: a shard is missing: ${cause.message}; make the pack again`, { cause });
        });
        const state = await readSafetensors(source);
        const [own, checks, items] = [tensorOf(state, path, 'labels', [n]), tensorOf(state, path, 'crc32', [n, views]), tensorOf(state, path, 'items', [n, views, ...info.shape])];
        labels.set(new Int32Array((await own.read()).slice().buffer), at);
        crcs.set(new Uint32Array((await checks.read()).slice().buffer), at * views);
        shards.push({ path, descriptor: await promisify(openFile)(path, 'r'), start: startOf(source, items) });
      }
      return new Pack(info, shards, labels, crcs);
    } catch (error) {
      for (const { descriptor } of shards) closeSync(descriptor);
      throw error;
    }
  }

  /** Views of samples, one after another. @throws DataError where one is damaged; ArgumentError where there is no such sample, or the pack is closed */
  async read(picks: readonly PackPick[]): Promise<Uint8Array<ArrayBuffer>> {
    const out = new Uint8Array(picks.length * this.viewBytes);
    await Promise.all(
      picks.map(async (pick, i) => {
        const into = out.subarray(i * this.viewBytes, (i + 1) * this.viewBytes);
        const { shard, at } = this.#place(pick);
        this.#check(pick, shard, into, await this.#read(shard, into, at));
      }),
    );
    return out;
  }

  /** The same at once, while everything else waits. */
  readSync(picks: readonly PackPick[]): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(picks.length * this.viewBytes);
    for (const [i, pick] of picks.entries()) {
      const into = out.subarray(i * this.viewBytes, (i + 1) * this.viewBytes);
      const { shard, at } = this.#place(pick);
      this.#check(pick, shard, into, readSync(shard.descriptor, into, 0, into.length, at));
    }
    return out;
  }

  /** Closes its files, after what is being read; once more does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#reading === 0) this.#closeFiles();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #closeFiles(): void {
    for (const { descriptor } of this.#shards) closeSync(descriptor);
  }

  async #read({ descriptor }: Shard, into: Uint8Array, at: number): Promise<number> {
    this.#reading += 1;
    try {
      return await readAt(descriptor, into, at);
    } finally {
      this.#reading -= 1;
      // not before: another file may get the descriptor's number
      if (this.#closed && this.#reading === 0) this.#closeFiles();
    }
  }

  #place({ index, view = 0 }: PackPick): { shard: Shard; at: number } {
    if (this.#closed) throw new ArgumentError('Pack.read: the pack', 'closed', 'one that is open');
    const { views, perShard } = this.info;
    if (!Number.isInteger(index) || index < 0 || index >= this.count) throw new ArgumentError('Pack.read: index', index, `an integer from 0 to ${this.count - 1}`);
    if (!Number.isInteger(view) || view < 0 || view >= views) throw new ArgumentError('Pack.read: view', view, `an integer from 0 to ${views - 1}`);
    const shard = this.#shards[Math.floor(index / perShard)]!;
    return { shard, at: shard.start + ((index % perShard) * views + view) * this.viewBytes };
  }

  #check({ index, view = 0 }: PackPick, { path }: Shard, bytes: Uint8Array, got: number): void {
    if (got === bytes.length && viewCrc(bytes, this.labels[index]!) === this.#crcs[index * this.info.views + view]) return;
    throw new DataError(`sample ${index} in ${path} is not what was written: the file was changed or is damaged. Make the pack again, in a new folder`);
  }
}

const bytesOf = (values: Int32Array | Uint32Array): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

function tensorOf({ tensors }: StateDict, path: string, name: string, shape: readonly number[]): TensorRecord {
  const found = tensors.get(name);
  if (found === undefined || String(found.shape) !== String(shape)) throw new DataError(`${path}: ${name} is ${found === undefined ? 'missing' : `[${found.shape.join(', ')}]`}, expected [${shape.join(', ')}]; make the pack again`);
  return found;
}

/** Items lie last in the file. */
const startOf = ({ size }: FileSource, { shape, dtype }: TensorRecord): number => size - shape.reduce((a, b) => a * b, dtype === 'U8' ? 1 : 2);

function readAt(descriptor: number, into: Uint8Array, at: number): Promise<number> {
  return new Promise((resolve, reject) => readFile(descriptor, into, 0, into.length, at, (error, got) => (error === null ? resolve(got) : reject(new DataError(`a pack cannot be read: ${error.message}`, { cause: error })))));
}

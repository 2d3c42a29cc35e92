/**
 * Checkpoints on disk, under Node.
 * @packageDocumentation
 */
import { CheckpointError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { readCheckpoint } from './checkpoint.js';
import type { FileCache } from './fetch/file-cache.js';
import { folderCache } from './fetch/folder-cache.js';
import { npzFiles } from './numpy.js';
import { readSafetensors, safetensorsHeader } from './safetensors.js';
import { readShardedSafetensors } from './sharded.js';
import type { Source } from './source.js';
import { type StateDict, type TensorRecord, checkBytes, checkedRecord, tensorParts } from './state-dict.js';
import { torchFiles } from './torch-writer.js';
import { diskReason, writeAtomic } from './write-atomic.js';
import { writeZip } from './zip.js';

export { type LockFile, type LockHolder, type OwnLock, holderLives, makeLock, readLock, removeLock } from './file-lock.js';
export { checkWritable, diskReason, makeFolder, syncFolder, writeAtomic, writeFileAtomic } from './write-atomic.js';

/** A file as a source. Close it when its tensors have been read. */
export interface FileSource extends Source {
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** @throws CheckpointError where there is no such file */
export async function fileSource(path: string): Promise<FileSource> {
  let handle: FileHandle;
  let size: number;
  try {
    // asked before it is opened: a pipe would wait for who writes to it
    const found = await stat(path);
    if (!found.isFile()) throw Object.assign(new Error('it is no file'), found.isDirectory() ? { code: 'EISDIR' } : {});
    size = found.size;
    handle = await open(path);
  } catch (cause) {
    throw new CheckpointError(`${path} cannot be read: ${diskReason(cause)}`, { cause });
  }
  const readInto = async (into: Uint8Array, offset: number): Promise<void> => {
    for (let done = 0; done < into.length; ) {
      const { bytesRead } = await handle.read(into, done, into.length - done, offset + done).catch((cause: unknown) => {
        throw new CheckpointError(`${path} cannot be read: ${diskReason(cause)}`, { cause });
      });
      if (bytesRead === 0) throw new CheckpointError(`${path} ended early: ${into.length} bytes were expected at ${offset}, ${done} came. It may have changed while it was read.`);
      done += bytesRead;
    }
  };
  return {
    name: path,
    size,
    read: async (offset, length) => {
      const bytes = new Uint8Array(length);
      await readInto(bytes, offset);
      return bytes;
    },
    readInto,
    close: () => handle.close(),
    [Symbol.asyncDispose]: () => handle.close(),
  };
}

/**
 * A checkpoint of any format, told by its contents, or a sharded one by its `.index.json`, whose tensors are read when they are asked for. Close it then.
 * @throws CheckpointError where it cannot be read or is no checkpoint
 */
export async function openCheckpoint(path: string): Promise<StateDict & AsyncDisposable> {
  const opened: FileSource[] = [];
  const file = async (name: string): Promise<FileSource> => {
    const source = await fileSource(name);
    opened.push(source);
    return source;
  };
  const close = async (): Promise<void> => void (await Promise.all(opened.map((source) => source.close())));
  try {
    const source = await file(path);
    const state = path.endsWith('.json')
      ? await readShardedSafetensors(new TextDecoder().decode(await source.read(0, source.size)), path, (shard) => file(join(dirname(path), shard)))
      : await readCheckpoint(source);
    return { ...state, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A folder as the cache of `fetchCheckpoint`. Default: `TINYFUSION_CACHE`, else the platform's folder for caches. */
export function nodeCache(folder?: string): FileCache {
  return folderCache(fileSource, folder);
}

/** A safetensors file, read whole. @throws CheckpointError where it is none, or damaged */
export async function loadSafetensors(path: string): Promise<StateDict> {
  await using source = await fileSource(path);
  return await inMemory(await readSafetensors(source)); // before the file is closed
}

/** A checkpoint of any format, read whole. Throws as {@link openCheckpoint} does. */
export async function loadCheckpoint(path: string): Promise<StateDict> {
  await using checkpoint = await openCheckpoint(path);
  return await inMemory(checkpoint); // before it is closed
}

async function inMemory({ tensors, metadata }: StateDict): Promise<StateDict> {
  const read = new Map<string, TensorRecord>();
  for (const [name, { dtype, shape, read: bytesOf }] of tensors) {
    const bytes = await bytesOf();
    read.set(name, { dtype, shape, read: async () => bytes });
  }
  return { tensors: read, metadata };
}

/** Options of {@link writeCheckpoint}. */
export interface WriteCheckpointOptions extends LongTaskOptions {
  /** Text to keep beside the tensors. Default: the state's own. */
  metadata?: Iterable<readonly [string, string]>;
  /**
   * What stands in the place of `metadata` in the end, where it is known only later, e.g. the hash of the tensors' source:
   * a `.safetensors` file is written meanwhile. Its texts have the lengths of those of `metadata`.
   */
  finalMetadata?: Promise<Iterable<readonly [string, string]>>;
}

/** Bytes that are copied from file to file at once. */
const PART = 4 * 2 ** 20;
/** Bytes after which the disk is told to begin: it is busy while the next are read, and the last sync is short. */
const AHEAD = 128 * 2 ** 20;

/**
 * Writes a state dict tensor by tensor, in the format that the path's ending names: `.safetensors`, `.pt` (`.pth`,
 * `.ckpt`) or `.npz`. No more than one tensor is in memory; there is the old file or the new one, whole.
 * @throws CheckpointError where the ending is another, a tensor gives other bytes than its type and shape need, or the file
 * cannot be written; the old file is intact
 */
export async function writeCheckpoint(path: string, { tensors, metadata: own }: StateDict, { metadata = own, finalMetadata, signal, onProgress }: WriteCheckpointOptions = {}): Promise<void> {
  finalMetadata?.catch(() => {}); // it is awaited below, where nothing else has failed before
  const list = [...tensors];
  let finished = 0;
  const report = (): void => onProgress?.({ task: 'write', step: finished, total: list.length, unit: 'tensor' });
  const begun = (): void => throwIfCancelled(signal, 'write');
  const done = (): void => {
    // of the last it is told when the file is there
    if (++finished < list.length) report();
  };
  const format = /\.(safetensors|pt|pth|ckpt|npz)$/.exec(path)?.[1];
  if (format === undefined) throw new CheckpointError(`${path} names no format; expected it to end in .safetensors, .pt, .pth, .ckpt or .npz`);
  await writeAtomic(path, async (handle) => {
    if (format === 'safetensors') {
      const header = safetensorsHeader(list, metadata);
      await writeAll(handle, header);
      const room = new Uint8Array(PART);
      let [written, synced] = [0, Promise.resolve()];
      for (const [name, record] of list) {
        begun();
        let count = 0;
        for await (const part of tensorParts(record, room)) {
          await writeAll(handle, part);
          count += part.length;
        }
        checkBytes(name, record, count);
        done();
        written += count;
        if (written >= AHEAD) {
          written = 0;
          await synced;
          synced = handle.datasync();
          synced.catch(() => {}); // awaited next
        }
      }
      await synced;
      if (finalMetadata === undefined) return;
      const final = safetensorsHeader(list, await finalMetadata);
      if (final.length !== header.length) throw new CheckpointError(`the final metadata make a header of ${final.length} bytes, expected ${header.length}, as \`metadata\` does`);
      await writeAll(handle, final, 0);
      return;
    }
    const text = (await finalMetadata) ?? metadata;
    const checked = list.map(([name, record]) => [name, checkedRecord(name, record, { begun, done })] as const);
    const files = format === 'npz' ? npzFiles(checked, text) : torchFiles(checked, text);
    await writeZip(files, new WritableStream({ write: (chunk) => writeAll(handle, chunk) }));
  });
  report();
}

/** Writes all bytes, at `position` or where the last ones ended. */
async function writeAll(handle: FileHandle, bytes: Uint8Array, position?: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at, undefined, position === undefined ? undefined : position + at)).bytesWritten;
}

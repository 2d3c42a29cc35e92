/**
 * Checkpoints on disk, under Node.
 * @packageDocumentation
 */
import { CheckpointError, type LongTaskOptions, TinyFusionError, throwIfCancelled } from '@tinyfusion/core';
import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { readCheckpoint } from './checkpoint.js';
import type { FileCache } from './fetch/file-cache.js';
import { folderCache } from './fetch/folder-cache.js';
import { npzFiles } from './numpy.js';
import { readSafetensors, safetensorsHeader } from './safetensors.js';
import { readShardedSafetensors } from './sharded.js';
import type { Source } from './source.js';
import { type StateDict, type TensorRecord, tensorParts } from './state-dict.js';
import { torchFiles } from './torch-writer.js';
import { writeZip } from './zip.js';

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
    handle = await open(path);
    size = (await handle.stat()).size;
  } catch (cause) {
    throw new CheckpointError(`${path} cannot be read: ${reason(cause)}`, { cause });
  }
  return {
    name: path,
    size,
    read: async (offset, length) => {
      const bytes = new Uint8Array(length);
      for (let done = 0; done < length; ) {
        const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
        if (bytesRead === 0) throw new CheckpointError(`${path} ended early: ${length} bytes were expected at ${offset}, ${done} came. It may have changed while it was read.`);
        done += bytesRead;
      }
      return bytes;
    },
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

/** A safetensors file, read whole. */
export async function loadSafetensors(path: string): Promise<StateDict> {
  const source = await fileSource(path);
  try {
    const state = await readSafetensors(source);
    const tensors = new Map<string, StateDict['tensors'] extends ReadonlyMap<string, infer R> ? R : never>();
    for (const [name, record] of state.tensors) {
      const bytes = await record.read();
      tensors.set(name, { ...record, read: async () => bytes });
    }
    return { tensors, metadata: state.metadata };
  } finally {
    await source.close();
  }
}

/** Options of {@link writeCheckpoint}. */
export interface WriteCheckpointOptions extends LongTaskOptions {
  /** Text to keep beside the tensors, where the format has a place for it (safetensors). Default: the state's own. */
  metadata?: Iterable<readonly [string, string]>;
}

/**
 * Writes a state dict tensor by tensor, in the format that the path's ending names: `.safetensors`, `.pt` (`.pth`,
 * `.ckpt`) or `.npz`. No more than one tensor is in memory; there is the old file or the new one, whole.
 * @throws CheckpointError where the ending is another, or the file cannot be written
 */
export async function writeCheckpoint(path: string, { tensors, metadata: own }: StateDict, { metadata = own, signal, onProgress }: WriteCheckpointOptions = {}): Promise<void> {
  const list = [...tensors];
  let done = 0;
  const counted = list.map(([name, record]): [string, TensorRecord] => [
    name,
    {
      ...record,
      read: async () => {
        throwIfCancelled(signal, 'write');
        const bytes = await record.read();
        onProgress?.({ task: 'write', step: ++done, total: list.length, unit: 'tensor' });
        return bytes;
      },
      ...(record.stream === undefined
        ? {}
        : {
            stream: () => {
              onProgress?.({ task: 'write', step: ++done, total: list.length, unit: 'tensor' });
              return record.stream!();
            },
          }),
    },
  ]);
  const format = /\.(safetensors|pt|pth|ckpt|npz)$/.exec(path)?.[1];
  if (format === undefined) throw new CheckpointError(`${path} names no format; expected it to end in .safetensors, .pt, .pth, .ckpt or .npz`);
  await writeAtomic(path, async (handle) => {
    if (format === 'safetensors') {
      await handle.write(safetensorsHeader(counted, metadata));
      for (const [, record] of counted) for await (const part of tensorParts(record)) await writeAll(handle, part);
      return;
    }
    const files = format === 'npz' ? npzFiles(counted) : torchFiles(counted);
    await writeZip(files, new WritableStream({ write: (chunk) => writeAll(handle, chunk) }));
  });
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at)).bytesWritten;
}

/**
 * Writes a file beside its place, syncs it to the disk and renames it, so that whatever happens there is the old file or
 * the new one, whole.
 * @throws CheckpointError where it cannot be written; the old file is intact
 */
export async function writeFileAtomic(path: string, bytes: Uint8Array | string): Promise<void> {
  await writeAtomic(path, (handle) => handle.writeFile(bytes));
}

/**
 * Like {@link writeFileAtomic} for what is written part by part: a file that is there whole or not at all, whatever
 * `write` does with the handle, which is closed for it.
 * @throws CheckpointError where it cannot be written, and whatever `write` throws of ours; the old file is intact
 */
export async function writeAtomic(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const beside = `${path}.${randomBytes(4).toString('hex')}.part`;
  try {
    const handle = await open(beside, 'wx');
    try {
      await write(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(beside, path);
  } catch (cause) {
    await rm(beside, { force: true });
    if (TinyFusionError.isInstance(cause)) throw cause;
    throw new CheckpointError(`${path} cannot be written: ${reason(cause)}`, { cause });
  }
  await syncFolder(dirname(path));
}

/** Makes the rename itself durable, where the platform can. */
async function syncFolder(path: string): Promise<void> {
  try {
    const folder = await open(path);
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch {
    // Windows opens no folders; the file itself is whole either way
  }
}

function reason(cause: unknown): string {
  const code = (cause as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return 'there is no such file or folder';
  if (code === 'ENOSPC') return 'the disk is full';
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied';
  if (code === 'EISDIR') return 'it is a folder';
  return cause instanceof Error ? cause.message : String(cause);
}

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
import { type StateDict, type TensorRecord, tensorParts } from './state-dict.js';
import { torchFiles } from './torch-writer.js';
import { diskReason, writeAtomic } from './write-atomic.js';
import { writeZip } from './zip.js';

export { checkWritable, diskReason, makeFolder, writeAtomic, writeFileAtomic } from './write-atomic.js';

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
  return {
    name: path,
    size,
    read: async (offset, length) => {
      const bytes = new Uint8Array(length);
      for (let done = 0; done < length; ) {
        const { bytesRead } = await handle.read(bytes, done, length - done, offset + done).catch((cause: unknown) => {
          throw new CheckpointError(`${path} cannot be read: ${diskReason(cause)}`, { cause });
        });
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
    const files = format === 'npz' ? npzFiles(counted, metadata) : torchFiles(counted, metadata);
    await writeZip(files, new WritableStream({ write: (chunk) => writeAll(handle, chunk) }));
  });
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at)).bytesWritten;
}

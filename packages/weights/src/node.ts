/**
 * Checkpoints on disk, under Node.
 * @packageDocumentation
 */
import { CheckpointError } from '@tinyfusion/core';
import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { readCheckpoint } from './checkpoint.js';
import { readSafetensors } from './safetensors.js';
import type { Source } from './source.js';
import type { StateDict } from './state-dict.js';

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
 * A checkpoint of any format, told by its contents, whose tensors are read when they are asked for. Close it then.
 * @throws CheckpointError where it cannot be read or is no checkpoint
 */
export async function openCheckpoint(path: string): Promise<StateDict & AsyncDisposable> {
  const source = await fileSource(path);
  try {
    return { ...(await readCheckpoint(source)), [Symbol.asyncDispose]: () => source.close() };
  } catch (error) {
    await source.close();
    throw error;
  }
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

/**
 * Writes a file beside its place, syncs it to the disk and renames it, so that whatever happens there is the old file or
 * the new one, whole.
 * @throws CheckpointError where it cannot be written; the old file is intact
 */
export async function writeFileAtomic(path: string, bytes: Uint8Array | string): Promise<void> {
  const beside = `${path}.${randomBytes(4).toString('hex')}.part`;
  try {
    const handle = await open(beside, 'wx');
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(beside, path);
  } catch (cause) {
    await rm(beside, { force: true });
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

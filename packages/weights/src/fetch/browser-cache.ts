import { CheckpointError } from '@tinyfusion/core';
import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex } from '@noble/hashes/utils.js';
import { blobSource } from '../source.js';
import { type FileCache, type PartialFile, parseNote } from './file-cache.js';

/**
 * The origin's private file system (OPFS) as a cache, in pages and workers.
 * @throws CheckpointError where the browser has none, or is out of room for it
 */
export function browserCache(folder = 'tinyfusion'): FileCache {
  const directory = async (): Promise<FileSystemDirectoryHandle> => {
    if (typeof navigator === 'undefined' || navigator.storage?.getDirectory === undefined) throw new CheckpointError('this browser has no private file system (OPFS), which fetched files are kept in; open the file from the disk, or from its URL with urlSource');
    return (await navigator.storage.getDirectory()).getDirectoryHandle(folder, { create: true });
  };
  const fileOf = async (name: string): Promise<File | undefined> => {
    try {
      return await (await (await directory()).getFileHandle(name)).getFile();
    } catch (error) {
      if ((error as DOMException).name === 'NotFoundError') return undefined;
      throw error;
    }
  };
  return {
    place: (name) => `${folder}/${name} of this origin’s private file system`,
    open: async (name) => {
      const file = await fileOf(name);
      return file === undefined ? undefined : { ...blobSource(file, name), [Symbol.asyncDispose]: async () => {} };
    },
    setAside: async (name) => {
      const own = await directory();
      await moved(own, await own.getFileHandle(name), `${name}.rejected`);
      return `${name}.rejected`;
    },
    partial: async (name) => partialFile(await directory(), name, fileOf),
    exclusively: async (name, task, signal, onWait) => {
      const told = setTimeout(() => onWait?.('waiting for another tab of this page, which fetches it'), 500);
      try {
        return (await navigator.locks.request(`${folder}/${name}`, signal === undefined ? {} : { signal }, () => {
          clearTimeout(told);
          return task();
        })) as Awaited<ReturnType<typeof task>>;
      } finally {
        clearTimeout(told);
      }
    },
  };
}

async function partialFile(directory: FileSystemDirectoryHandle, name: string, fileOf: (name: string) => Promise<File | undefined>): Promise<PartialFile> {
  const [part, notes] = [`${name}.part`, `${name}.part.json`];
  let note = parseNote(await (await fileOf(notes))?.text());
  const known = note.etag !== undefined || note.lastModified !== undefined || note.total !== undefined;
  const handle = await directory.getFileHandle(part, { create: true });
  let size = known ? (await handle.getFile()).size : 0;
  let stream = await handle.createWritable({ keepExistingData: known });
  let waiting = 0;
  /** Writes become the file's when its stream is closed: from time to time, so that a closed tab loses little. */
  const settle = async (): Promise<void> => {
    await stream.close();
    stream = await handle.createWritable({ keepExistingData: true });
    waiting = 0;
  };
  const write = async (task: () => Promise<void>): Promise<void> => {
    try {
      await task();
    } catch (cause) {
      if ((cause as DOMException).name === 'QuotaExceededError') throw new CheckpointError(`the browser gives this origin no room for ${name}; remove other files of it, or open the file from the disk`, { cause });
      throw cause;
    }
  };
  let open = true;
  const close = async (): Promise<void> => {
    if (open) await stream.close();
    open = false;
  };
  return {
    get size() {
      return size;
    },
    get note() {
      return note;
    },
    begin: (next, { restart }) =>
      write(async () => {
        if (restart) {
          await stream.truncate(0);
          size = 0;
        }
        note = next;
        const to = await (await directory.getFileHandle(notes, { create: true })).createWritable();
        await to.write(JSON.stringify(note));
        await to.close();
      }),
    append: (bytes) =>
      write(async () => {
        await stream.write({ type: 'write', position: size, data: bytes as Uint8Array<ArrayBuffer> });
        size += bytes.length;
        waiting += bytes.length;
        if (waiting > 64 * 2 ** 20) await settle();
      }),
    sha256: async () => {
      await write(settle);
      const hash = sha256.create();
      const reader = (await handle.getFile()).stream().getReader();
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) hash.update(chunk.value);
      return bytesToHex(hash.digest());
    },
    commit: async () => {
      await write(close);
      await moved(directory, handle, name);
      await directory.removeEntry(notes).catch(() => {});
    },
    reject: async () => {
      await close();
      await moved(directory, handle, `${name}.rejected`);
      await directory.removeEntry(notes).catch(() => {});
      return `${name}.rejected`;
    },
    close,
  };
}

/** Renames a file, in one step where the browser can. */
async function moved(directory: FileSystemDirectoryHandle, handle: FileSystemFileHandle, name: string): Promise<void> {
  const movable = handle as FileSystemFileHandle & { move?(name: string): Promise<void> };
  if (movable.move !== undefined) return movable.move(name);
  const to = await (await directory.getFileHandle(name, { create: true })).createWritable();
  await (await handle.getFile()).stream().pipeTo(to);
  await directory.removeEntry(handle.name);
}

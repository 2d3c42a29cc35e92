import { CheckpointError, TinyFusionError, throwIfCancelled } from '@tinyfusion/core';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir, hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { makeFolder } from '../write-atomic.js';
import type { FileCache, PartialFile, PartialNote } from './file-cache.js';

/** Where fetched files are kept: `TINYFUSION_CACHE`, else the platform's folder for caches. */
function defaultCacheFolder(): string {
  const { env, platform } = process;
  if (env['TINYFUSION_CACHE'] !== undefined && env['TINYFUSION_CACHE'] !== '') return env['TINYFUSION_CACHE'];
  if (platform === 'darwin') return join(homedir(), 'Library', 'Caches', 'tinyfusion');
  if (platform === 'win32') return join(env['LOCALAPPDATA'] ?? join(homedir(), 'AppData', 'Local'), 'tinyfusion', 'cache');
  return join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'tinyfusion');
}

/**
 * A folder of files: `name` is whole, `name.part` is being fetched, `name.rejected` was not the file that was wanted.
 * @param openFile how a whole file is opened
 */
export function folderCache(openFile: (path: string) => ReturnType<FileCache['open']>, folder: string = defaultCacheFolder()): FileCache {
  const place = (name: string): string => join(folder, name);
  return {
    place,
    open: async (name) => ((await sizeOf(place(name))) === undefined ? undefined : openFile(place(name))),
    partial: async (name) => {
      await writable(folder, () => makeFolder(folder));
      return partialFile(place(name));
    },
    exclusively: async (name, task, signal) => {
      await writable(folder, () => makeFolder(folder));
      const release = await lock(`${place(name)}.lock`, name, signal);
      try {
        return await task();
      } finally {
        await release();
      }
    },
  };
}

async function partialFile(path: string): Promise<PartialFile> {
  const [part, notes] = [`${path}.part`, `${path}.part.json`];
  let note: PartialNote = JSON.parse(await readFile(notes, 'utf8').catch(() => '{}')) as PartialNote;
  // bytes whose origin is not known are of no use
  const known = note.etag !== undefined || note.lastModified !== undefined || note.total !== undefined;
  const handle = await writable(part, () => open(part, 'a'));
  if (!known) await writable(part, () => handle.truncate(0));
  let size = (await sizeOf(part)) ?? 0;
  let opened = true;
  const close = async (): Promise<void> => {
    if (opened) await handle.close();
    opened = false;
  };
  return {
    get size() {
      return size;
    },
    get note() {
      return note;
    },
    begin: async (next, { restart }) => {
      if (restart) {
        await writable(part, () => handle.truncate(0));
        size = 0;
      }
      note = next;
      await writable(notes, () => writeFile(notes, JSON.stringify(note)));
    },
    append: async (bytes) => {
      await writable(part, () => handle.appendFile(bytes));
      size += bytes.length;
    },
    sha256: async () => {
      const hash = createHash('sha256');
      await pipeline(createReadStream(part), hash);
      return hash.digest('hex');
    },
    commit: async () => {
      await writable(part, () => handle.sync());
      await close();
      await writable(path, () => rename(part, path));
      await rm(notes, { force: true });
    },
    reject: async () => {
      await close();
      const aside = `${path}.rejected`;
      await rename(part, aside);
      await rm(notes, { force: true });
      return aside;
    },
    close,
  };
}

/** Takes a lock file, waiting for who has it; one of a process that is no more is taken over. */
async function lock(path: string, name: string, signal: AbortSignal | undefined): Promise<() => Promise<void>> {
  for (;;) {
    throwIfCancelled(signal, `fetch ${name}`);
    try {
      const handle = await open(path, 'wx');
      await handle.writeFile(`${process.pid} ${hostname()}`);
      await handle.close();
      return () => rm(path, { force: true });
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') await writable(path, () => Promise.reject(cause as Error));
    }
    const [pid, host] = (await readFile(path, 'utf8').catch(() => '')).split(' ');
    // an empty one is being written; who died before that left it so for seconds
    const abandoned = pid === '' || pid === undefined ? Date.now() - ((await stat(path).catch(() => undefined))?.mtimeMs ?? Date.now()) > 10_000 : host === hostname() && !alive(Number(pid));
    if (abandoned) await rm(path, { force: true });
    else await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true ? found.size : undefined;
}

/** Turns what a disk refuses into a CheckpointError. */
async function writable<T>(path: string, task: () => Promise<T>): Promise<T> {
  try {
    return await task();
  } catch (cause) {
    // makeFolder's own words are about what the disk said
    const own = TinyFusionError.isInstance(cause) ? cause : undefined;
    const { code, message } = (own?.cause ?? cause) as NodeJS.ErrnoException;
    const why = code === 'ENOSPC' ? `the disk of ${dirname(path)} is full; what has come is kept, and the next try goes on from there` : code === 'EACCES' || code === 'EPERM' || code === 'EROFS' ? `${path} cannot be written: permission denied; set TINYFUSION_CACHE to a folder of yours` : (own?.message ?? `${path} cannot be written: ${message}`);
    throw new CheckpointError(why, { cause });
  }
}

import { CheckpointError, TinyFusionError, throwIfCancelled } from '@tinyfusion/core';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { SILENCE, isLeft, makeLock, readLock, removeLock } from '../file-lock.js';
import { waiting } from '../waiting.js';
import { makeFolder } from '../write-atomic.js';
import { type FileCache, type PartialFile, parseNote } from './file-cache.js';

/** Where fetched files are kept: `TINYFUSION_CACHE`, else the platform's folder for caches. */
function defaultCacheFolder(): string {
  const { env, platform } = process;
  if (env['TINYFUSION_CACHE'] !== undefined && env['TINYFUSION_CACHE'] !== '') return env['TINYFUSION_CACHE'];
  if (platform === 'darwin') return join(homedir(), 'Library', 'Caches', 'tinyfusion');
  if (platform === 'win32') return join(env['LOCALAPPDATA'] ?? join(homedir(), 'AppData', 'Local'), 'tinyfusion', 'cache');
  return join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'tinyfusion');
}

/**
 * A folder of files: `name` is whole, `name.part` is being fetched, `name.rejected` was not the file that was wanted, `name.lock` says who fetches it.
 * @param openFile how a whole file is opened
 * @param times of who fetches a file and who waits for it
 */
export function folderCache(openFile: (path: string) => ReturnType<FileCache['open']>, folder: string = defaultCacheFolder(), { beat = 10_000, silence = SILENCE }: Partial<Pick<Waiting, 'beat' | 'silence'>> = {}): FileCache {
  const place = (name: string): string => join(folder, name);
  return {
    place,
    open: async (name) => ((await sizeOf(place(name))) === undefined ? undefined : openFile(place(name))),
    setAside: async (name) => {
      const aside = `${place(name)}.rejected`;
      await rename(place(name), aside);
      return aside;
    },
    partial: async (name) => {
      await writable(folder, () => makeFolder(folder));
      return partialFile(place(name));
    },
    exclusively: async (name, task, signal, onWait) => {
      await writable(folder, () => makeFolder(folder));
      const release = await lock(`${place(name)}.lock`, name, { signal, onWait, beat, silence });
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
  let note = parseNote(await readFile(notes, 'utf8').catch(() => undefined));
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
      // whole or not at all; a power cut may leave it empty, and the file begins anew
      await writable(notes, () => writeFile(`${notes}.new`, JSON.stringify(note)));
      await writable(notes, () => rename(`${notes}.new`, notes));
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
      const { size: found } = await handle.stat();
      await close();
      if (found !== size) {
        await Promise.all([part, notes].map((own) => rm(own, { force: true })));
        throw new CheckpointError(`${part} has ${found} bytes where ${size} came: somebody else wrote it too. It was removed; try again`);
      }
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

/** How a fetch waits for another one. */
interface Waiting {
  signal: AbortSignal | undefined;
  onWait: ((note: string) => void) | undefined;
  /** How often who fetches shows that it is alive, in ms. */
  beat: number;
  /** How long it shows nothing, in ms, when it is taken for gone. */
  silence: number;
}

/** Takes a lock file, waiting for who has it; one that was left behind is taken over. */
async function lock(path: string, name: string, { signal, onWait, beat, silence }: Waiting): Promise<() => Promise<void>> {
  // by this machine's clock alone: the disk's may be another
  let last: { sign: string; since: number; told: boolean } | undefined;
  for (;;) {
    throwIfCancelled(signal, `fetch ${name}`);
    const own = await writable(path, () => makeLock(path));
    if (own !== undefined) {
      const beats = setInterval(() => void own.touch(), beat).unref();
      return async () => {
        clearInterval(beats);
        await own.release();
      };
    }
    const found = await readLock(path);
    if (found !== undefined) {
      const sign = `${found.modified} ${found.text}`;
      if (last?.sign !== sign) last = { sign, since: performance.now(), told: last?.told ?? false };
      else if (!last.told) {
        last.told = true;
        onWait?.(`waiting for ${found.holder === undefined ? 'whoever' : `process ${found.holder.pid} of ${found.holder.host}, which`} fetches it; where nobody does, delete ${path}`);
      }
      if (await isLeft(found, performance.now() - last.since, silence)) {
        await writable(path, () => removeLock(path, found));
        continue;
      }
    }
    await waiting(200, signal);
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

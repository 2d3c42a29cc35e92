import { CheckpointError, type OnProgress, TinyFusionError, throwIfCancelled } from '@tinyfusion/core';
import { readCheckpoint } from '../checkpoint.js';
import { NoCheckpointError } from '../no-checkpoint.js';
import type { Source } from '../source.js';
import type { StateDict } from '../state-dict.js';
import { type DownloadOptions, download } from './download.js';
import type { FileCache } from './file-cache.js';
import { type HubOptions, addressOf, locate } from './locate.js';
import { sourceHash } from './source-hash.js';

/** Options of {@link fetchFile} and {@link fetchCheckpoint}. */
export interface FetchOptions extends DownloadOptions, HubOptions {
  /** Whether only the cache is looked into. Default `false`. */
  offline?: boolean | undefined;
  /** SHA-256 that the file must have, in hexadecimal; one that is in the cache is read whole for it. Default: what its publisher states when it is fetched. */
  sha256?: string | undefined;
}

/**
 * A file from the cache, or from the web into it: continued where an earlier try ended, verified, and whole before it has
 * its name. Fetches of one file at once wait for each other. Close it when its tensors have been read.
 *
 * @param what a name of `knownCheckpoints`, a URL, or `hf://owner/repository[@revision]/path`
 * @throws CheckpointError where it cannot be had, with where to put it by hand; where it is not the file that was wanted
 */
export async function fetchFile(what: string, cache: FileCache, { offline = false, sha256: wanted, onProgress, ...options }: FetchOptions = {}): Promise<Source & AsyncDisposable> {
  const location = locate(what);
  const name = location.file;
  const task = `fetch ${name}`;
  const byHand = `fetch ${location.from} by other means and put it at ${cache.place(name)}`;
  let ended = false;
  const report: OnProgress = (event) => {
    ended = event.step === event.total;
    onProgress?.(event);
  };
  const present = await whole();
  if (present !== undefined) return here(present, true);
  if (offline) throw new CheckpointError(`${name} is not in the cache, and offline nothing is fetched; ${byHand}`);
  try {
    return await cache.exclusively(
      name,
      async () => {
        const meanwhile = await whole(); // somebody else fetched it
        if (meanwhile !== undefined) return here(meanwhile, true);
        try {
          const { url, headers, size, sha256, sha256Prefix } = await addressOf(location, options);
          const file = await cache.partial(name);
          try {
            if (size === undefined || file.size !== size) await download(url, name, size, file, { ...options, headers: withHeaders(headers, options.headers), onProgress: report });
            await verify(file, wanted ?? sha256 ?? sha256Prefix);
            await file.commit();
          } finally {
            await file.close();
          }
        } catch (cause) {
          throwIfCancelled(options.signal, task);
          if (TinyFusionError.isInstance(cause) && !CheckpointError.isInstance(cause)) throw cause;
          const message = cause instanceof Error ? cause.message : String(cause);
          throw new CheckpointError(`${message}. To go on without: ${byHand}.`, { cause });
        }
        return here((await whole())!, false);
      },
      options.signal,
      (note) => onProgress?.({ task, step: 0, unit: 'byte', note }),
    );
  } catch (cause) {
    // a browser's lock ends a wait with an error of its own
    throwIfCancelled(options.signal, task);
    throw cause;
  }

  /** A file that is whole, verified where it was not just fetched. */
  async function here(file: Source & AsyncDisposable, unknown: boolean): Promise<Source & AsyncDisposable> {
    if (unknown && wanted !== undefined) {
      try {
        const found = await sourceHash(file, `verify ${name}`, { signal: options.signal, onProgress });
        if (!found.startsWith(wanted.toLowerCase())) throw new CheckpointError(`${cache.place(name)} has SHA-256 ${found}, expected ${wanted}: it is damaged or another file; remove it and try again`);
      } catch (error) {
        await file[Symbol.asyncDispose]();
        throw error;
      }
    }
    if (!ended) report({ task, step: file.size, total: file.size, unit: 'byte' });
    return file;
  }

  async function whole(): Promise<(Source & AsyncDisposable) | undefined> {
    const file = await cache.open(name);
    if (file !== undefined && location.size !== undefined && file.size !== location.size) {
      await file[Symbol.asyncDispose]();
      throw new CheckpointError(`${cache.place(name)} has ${file.size} bytes, expected ${location.size}; remove it and try again`);
    }
    return file;
  }

  async function verify(file: { sha256(): Promise<string>; reject(): Promise<string> }, expected: string | undefined): Promise<void> {
    if (expected === undefined) return;
    const found = await file.sha256();
    if (found.startsWith(expected.toLowerCase())) return;
    const aside = await file.reject();
    throw new CheckpointError(`${name} has SHA-256 ${found}, expected ${expected}${expected.length < 64 ? '…' : ''}: it is damaged or another file. It is kept as ${aside} and not used`);
  }
}

/** Headers of both, the caller's own first. */
function withHeaders(ours: Readonly<Record<string, string>>, own: Readonly<Record<string, string>> = {}): Record<string, string> {
  const names = new Set(Object.keys(own).map((name) => name.toLowerCase()));
  return { ...Object.fromEntries(Object.entries(ours).filter(([name]) => !names.has(name.toLowerCase()))), ...own };
}

/**
 * {@link fetchFile}, read as a checkpoint of any format, tensor by tensor when they are asked for. A file that is none is
 * set aside, so that the next try fetches it.
 * @throws CheckpointError as {@link fetchFile}, and where it is no checkpoint
 */
export async function fetchCheckpoint(what: string, cache: FileCache, options: FetchOptions = {}): Promise<StateDict & AsyncDisposable> {
  const file = await fetchFile(what, cache, options);
  try {
    const state = await readCheckpoint(file);
    return { ...state, [Symbol.asyncDispose]: () => file[Symbol.asyncDispose]() };
  } catch (error) {
    await file[Symbol.asyncDispose]();
    if (!(error instanceof NoCheckpointError)) throw error;
    const { file: name, from } = locate(what);
    const aside = await cache.setAside?.(name).catch(() => undefined); // another process did it before, or the disk takes nothing
    throw new CheckpointError(`${error.message}. ${aside === undefined ? `Remove ${cache.place(name)}` : `It is kept as ${aside} and not used`}; try again, or fetch ${from} by other means and put it at ${cache.place(name)}`, { cause: error });
  }
}

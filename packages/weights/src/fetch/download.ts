import { CheckpointError, type LongTaskOptions, TinyFusionError, throwIfCancelled } from '@tinyfusion/core';
import { waiting } from '../waiting.js';
import type { PartialFile } from './file-cache.js';

/** How a file is brought here through stalls and cut connections. */
export interface DownloadOptions extends LongTaskOptions {
  headers?: Readonly<Record<string, string>> | undefined;
  /** How long nothing may come before a request is given up, in milliseconds. Default 30,000. */
  timeout?: number | undefined;
  /** How often in a row a request may bring nothing. Default 5. */
  retries?: number | undefined;
  /** Waits before the next try, in milliseconds, doubled each time. Default 500. */
  backoff?: number | undefined;
}

/** What came wrong and may come right at the next try. */
class Passing extends Error {}

/**
 * Brings a file here, going on from what is here already, through stalls and cut connections.
 *
 * @param name what messages and progress call it
 * @param size bytes that it must have, where that is known
 * @throws CheckpointError where the server has another file than was wanted, gives none, or does not answer
 */
export async function download(url: string, name: string, size: number | undefined, to: PartialFile, { headers = {}, timeout = 30_000, retries = 5, backoff = 500, signal, onProgress }: DownloadOptions = {}): Promise<void> {
  const task = `fetch ${name}`;
  for (let failures = 0; ; ) {
    throwIfCancelled(signal, task);
    const before = to.size;
    try {
      if (await request()) return;
      throw new Passing(`the connection ended after ${to.size} bytes`);
    } catch (cause) {
      throwIfCancelled(signal, task);
      if (TinyFusionError.isInstance(cause)) throw cause;
      failures = to.size > before ? 0 : failures + 1;
      if (failures > retries) throw new CheckpointError(`${name} cannot be fetched from ${hostOf(url)}: ${reasonOf(cause)}`, { cause });
      await waiting(Math.min(30_000, backoff * 2 ** Math.max(0, failures - 1)), signal);
    }
  }

  function isPage(): CheckpointError {
    return new CheckpointError(`${hostOf(url)} sent a page (HTML) in place of ${name}; open its address in a browser to see what it asks for`);
  }

  /** One request; true when everything is here. */
  async function request(): Promise<boolean> {
    const idle = new AbortController();
    const stalled = (): void => idle.abort(new Passing(`nothing came for ${timeout / 1000} s`));
    let timer = setTimeout(stalled, timeout);
    try {
      const have = to.size;
      const validator = to.note.etag !== undefined && !to.note.etag.startsWith('W/') ? to.note.etag : to.note.lastModified;
      const response = await fetch(url, {
        headers: { ...headers, ...(have > 0 ? { Range: `bytes=${have}-`, ...(validator === undefined ? {} : { 'If-Range': validator }) } : {}) },
        signal: signal === undefined ? idle.signal : AbortSignal.any([idle.signal, signal]),
      });
      const total = await accept(response, have);
      const body = response.body?.getReader();
      if (body === undefined) throw new Passing('the answer has no body');
      try {
        for (let part = await body.read(); !part.done; part = await body.read()) {
          clearTimeout(timer);
          timer = setTimeout(stalled, timeout);
          if (total !== undefined && to.size + part.value.length > total) {
            await to.begin({}, { restart: true });
            throw new CheckpointError(`${hostOf(url)} sent more of ${name} than the ${total} bytes it said; try again, or fetch it by hand`);
          }
          if (to.size === 0 && PAGE.test(new TextDecoder('latin1').decode(part.value.subarray(0, 64)))) throw isPage();
          await to.append(part.value);
          onProgress?.({ task, step: to.size, total, unit: 'byte' });
        }
      } finally {
        await body.cancel().catch(() => {});
      }
      return total === undefined || to.size === total;
    } catch (cause) {
      throw idle.signal.aborted ? idle.signal.reason : cause;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Checks an answer's head and prepares the file for its body. @returns bytes of the whole file, where said */
  async function accept(response: Response, have: number): Promise<number | undefined> {
    const { status, headers: said } = response;
    const fail = async (error: Error): Promise<never> => {
      await response.body?.cancel();
      throw error;
    };
    // a sign-in, a network's own page, a share that wants to be agreed to
    if (/^text\/html\b/i.test(said.get('content-type') ?? '') && response.ok) return fail(isPage());
    const [etag, lastModified] = [said.get('etag') ?? undefined, said.get('last-modified') ?? undefined];
    if (status === 206) {
      const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(said.get('content-range') ?? '');
      if (range === null || Number(range[1]) !== have) return fail(new CheckpointError(`${hostOf(url)} was asked for ${name} from byte ${have} and sent ${said.get('content-range') ?? 'no range'}; this server cannot continue files, fetch it by hand`));
      const total = range[3] === '*' ? undefined : Number(range[3]);
      const { note } = to;
      if ((note.etag !== undefined && etag !== undefined && note.etag !== etag) || (note.total !== undefined && total !== undefined && note.total !== total)) {
        // another file lies there now
        await to.begin({}, { restart: true });
        return fail(new Passing('the file changed meanwhile'));
      }
      return checked(total);
    }
    if (status === 200) {
      const length = said.get('content-encoding') === null ? said.get('content-length') : null;
      const total = await checked(length === null ? undefined : Number(length));
      // all of it from the first byte: the server knows no ranges, or has another file now
      await to.begin({ etag, lastModified, total }, { restart: true });
      return total;
    }
    if (status === 416) {
      await to.begin({}, { restart: true });
      return fail(new Passing('the server has fewer bytes than are here; starting again'));
    }
    const permanent = status >= 400 && status < 500 && status !== 408 && status !== 425 && status !== 429;
    const message = `it answered with status ${status}${response.statusText === '' ? '' : ` (${response.statusText})`}`;
    return fail(permanent ? new CheckpointError(`${name} cannot be fetched from ${hostOf(url)}: ${message}`) : new Passing(message));

    async function checked(total: number | undefined): Promise<number | undefined> {
      if (size !== undefined && total !== undefined && size !== total) return fail(new CheckpointError(`${hostOf(url)} has ${total} bytes under ${name}, expected ${size}: it is another file, or a page of the server's`));
      return total ?? size;
    }
  }
}

/** How a page begins, whatever the server calls it. */
const PAGE = /^\s*<(?:!doctype html|html)\b/i;

function hostOf(url: string): string {
  return new URL(url).host;
}

function reasonOf(cause: unknown): string {
  if (cause instanceof Passing) return cause.message;
  const inner = (cause as { cause?: { code?: string; message?: string } } | null)?.cause;
  return inner?.code ?? inner?.message ?? (cause instanceof Error ? cause.message : String(cause));
}

import { CheckpointError, throwIfCancelled } from '@tinyfusion/core';
import type { Source } from './source.js';
import { waiting } from './waiting.js';

/** Options of {@link urlSource}. */
export interface UrlSourceOptions {
  /** Sent with every request, e.g. an authorisation. */
  headers?: Record<string, string>;
  /** How long nothing may come before a request is given up, in milliseconds. Default 30,000. */
  timeout?: number;
  /** How often a request that failed is made again; what came before is kept. Default 3. */
  retries?: number;
  /** Waits before the next try, in milliseconds, doubled each time. Default 500. */
  backoff?: number;
  signal?: AbortSignal | undefined;
}

/**
 * A file on the web as a source, read by range requests.
 * @throws CheckpointError where the server does not answer, has no such file, or knows no ranges
 */
export async function urlSource(url: string, options: UrlSourceOptions = {}): Promise<Source> {
  const { total } = await requestRange(url, 0, 1, options);
  return {
    name: url,
    size: total,
    read: async (offset, length) => (length === 0 ? new Uint8Array(0) : (await requestRange(url, offset, length, options)).bytes),
  };
}

/** Bytes of a file on the web, through interruptions. */
async function requestRange(url: string, offset: number, length: number, { headers = {}, timeout = 30_000, retries = 3, backoff = 500, signal }: UrlSourceOptions): Promise<{ bytes: Uint8Array; total: number }> {
  const bytes = new Uint8Array(length);
  let got = 0;
  let total = 0;
  for (let attempt = 0; ; attempt++) {
    throwIfCancelled(signal, `reading ${url}`);
    const idle = new AbortController();
    let timer = setTimeout(() => idle.abort(), timeout);
    try {
      const response = await fetch(url, { headers: { ...headers, Range: `bytes=${offset + got}-${offset + length - 1}` }, signal: signal === undefined ? idle.signal : AbortSignal.any([idle.signal, signal]) });
      const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
      if (response.status === 200) {
        await response.body?.cancel();
        throw new CheckpointError(`the server of ${url} sends whole files only (status 200 to a request for a part); fetch the file and open it from the disk`);
      }
      if (response.status === 206 && range === null) {
        await response.body?.cancel();
        throw new CheckpointError(`the server of ${url} does not tell which part it sent: no Content-Range came, or this page may not see it (the server has to name it in Access-Control-Expose-Headers); fetch the file and open it from the disk`);
      }
      if (response.status !== 206 || range === null) {
        await response.body?.cancel();
        const permanent = response.status >= 400 && response.status < 500 && response.status !== 408 && response.status !== 429;
        const error = new CheckpointError(`the server of ${url} answered with status ${response.status}`);
        if (permanent) throw error;
        throw new Retry(error);
      }
      if (Number(range[1]) !== offset + got) throw new CheckpointError(`the server of ${url} sent bytes from ${range[1]} where ${offset + got} were asked for`);
      total = Number(range[3]);
      const body = response.body!.getReader(); // not every browser iterates over a stream
      try {
        for (let part = await body.read(); !part.done; part = await body.read()) {
          clearTimeout(timer);
          timer = setTimeout(() => idle.abort(), timeout);
          if (got + part.value.length > length) throw new CheckpointError(`the server of ${url} sent more than the ${length} bytes that were asked for`);
          bytes.set(part.value, got);
          got += part.value.length;
        }
      } finally {
        await body.cancel().catch(() => {});
      }
      if (got === length) return { bytes, total };
      throw new Retry(new CheckpointError(`the connection to ${url} ended after ${got} of ${length} bytes`));
    } catch (cause) {
      throwIfCancelled(signal, `reading ${url}`);
      if (CheckpointError.isInstance(cause)) throw cause;
      if (attempt >= retries) {
        if (cause instanceof Retry) throw cause.reason;
        throw new CheckpointError(`${url} cannot be reached${idle.signal.aborted ? `: nothing came for ${timeout / 1000} s` : ''}; fetch the file by hand and open it from the disk`, { cause });
      }
    } finally {
      clearTimeout(timer);
    }
    await waiting(Math.min(30_000, backoff * 2 ** attempt), signal);
  }
}

/** A failure that may pass. */
class Retry extends Error {
  constructor(readonly reason: CheckpointError) {
    super(reason.message);
  }
}

// Files that are fetched from servers that stall, cut off, change, lie and are not there.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { CancelledError, CheckpointError, createRng } from '@tinyfusion/core';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { browserCache, fetchCheckpoint, fetchFile, knownCheckpoints, toFloat32, writableTensor, writeSafetensors } from '../src/index.js';
import { ask } from '../src/fetch/locate.js';
import { nodeCache } from '../src/node.js';

const values = createRng(1).normal(300_000);
const file = writeSafetensors([['w', writableTensor(values, [300, 1000])]]);
const sha256 = createHash('sha256').update(file).digest('hex');
// what stalls is given up after a second where that is tested; elsewhere a busy machine is waited for
const quick = { backoff: 1, timeout: 30_000 };
const impatient = { timeout: 1000 };

const closers: (() => void)[] = [];
afterEach(() => closers.splice(0).forEach((close) => close()));

/** A server whose nth request is answered by the nth of `answers`, the last one from then on. */
async function server(...answers: ((request: IncomingMessage, response: ServerResponse) => void)[]): Promise<{ url: string; asked: string[] }> {
  const asked: string[] = [];
  const http = createServer((request, response) => {
    const answer = answers[Math.min(asked.length, answers.length - 1)]!;
    asked.push(request.headers.range ?? 'all');
    answer(request, response);
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => http.once('listening', resolve));
  closers.push(() => {
    http.closeAllConnections();
    http.close();
  });
  return { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/a%20model.safetensors`, asked };
}

const from = (request: IncomingMessage): number => Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);

/** Answers as a good server does, with `send` in place of the body's end. */
const good =
  (bytes: Uint8Array = file, { etag = '"one"', until = bytes.length, after = (response: ServerResponse): void => void response.end() } = {}) =>
  (request: IncomingMessage, response: ServerResponse): void => {
    const asked = request.headers['if-range'] === undefined || request.headers['if-range'] === etag ? from(request) : 0;
    const head = { etag, 'content-length': bytes.length - asked };
    if (asked > 0) response.writeHead(206, { ...head, 'content-range': `bytes ${asked}-${bytes.length - 1}/${bytes.length}` });
    else response.writeHead(200, head);
    response.write(bytes.subarray(asked, Math.max(asked, until)), () => after(response));
  };
const status = (code: number) => (_: IncomingMessage, response: ServerResponse) => void response.writeHead(code).end();
const cutOff = (until: number) => good(file, { until, after: (response) => void setTimeout(() => response.destroy(), 20) });
const stall = (until: number) => good(file, { until, after: () => {} });

const folder = (): string => mkdtempSync(join(tmpdir(), 'cache-'));

async function fetched(url: string, at = folder(), options = {}): Promise<Float32Array> {
  await using checkpoint = await fetchCheckpoint(url, nodeCache(at), { ...quick, ...options });
  return toFloat32(checkpoint.tensors.get('w')!);
}

describe('a file from the web', () => {
  it('comes once, with progress, and is there offline and by hand', async () => {
    const { url, asked } = await server(good());
    const at = folder();
    const steps: string[] = [];
    expect(await fetched(url, at, { sha256, onProgress: ({ task, step, total, unit }: { task: string; step: number; total?: number; unit: string }) => steps.push(`${task} ${step}/${total} ${unit}`) })).toEqual(values);
    expect(steps.at(-1)).toMatch(new RegExp(`^fetch \\w{8}-a_20model\\.safetensors ${file.length}/${file.length} byte$`));
    expect(await fetched(url, at, { offline: true })).toEqual(values);
    expect(asked).toEqual(['all']);
    expect(readdirSync(at)).toHaveLength(1);
    const other = folder();
    const why = await fetched(url, other, { offline: true }).catch((error: unknown) => error as CheckpointError);
    expect(why).toBeInstanceOf(CheckpointError);
    const place = /put it at (\S+)$/.exec((why as CheckpointError).message)![1]!;
    writeFileSync(place, file);
    expect(await fetched(url, other, { offline: true })).toEqual(values);
  });

  it.each([
    ['cuts off', cutOff],
    ['stalls', stall],
  ])('goes on where it ended when the server %s', async (_name, failing) => {
    const { url, asked } = await server(failing(400_000), failing(900_000), good());
    expect(await fetched(url, folder(), { sha256, ...impatient })).toEqual(values);
    expect(asked).toEqual(['all', 'bytes=400000-', 'bytes=900000-']);
  });

  it('goes on in another run, and asks for nothing twice', async () => {
    const at = folder();
    const { url, asked } = await server(stall(500_000), good());
    const controller = new AbortController();
    const run = fetched(url, at, { signal: controller.signal, timeout: 60_000, onProgress: ({ step }: { step: number }) => step >= 500_000 && controller.abort() });
    await expect(run).rejects.toBeInstanceOf(CancelledError);
    expect(readdirSync(at).map((name) => name.replace(/^\w{8}-/, '')).toSorted()).toEqual(['a_20model.safetensors.part', 'a_20model.safetensors.part.json']);
    expect(await fetched(url, at, { sha256 })).toEqual(values);
    expect(asked).toEqual(['all', 'bytes=500000-']);
    expect(readdirSync(at)).toHaveLength(1);
  });

  it('begins again where it is another file meanwhile, whether the server says so or not', async () => {
    const changed = writeSafetensors([['w', writableTensor(values.map((v) => -v), [300, 1000])]]);
    // with If-Range the whole new file comes; a server that does not know it sends a part with another etag
    const careless = (request: IncomingMessage, response: ServerResponse): void => {
      delete request.headers['if-range'];
      good(changed, { etag: '"two"' })(request, response);
    };
    for (const second of [good(changed, { etag: '"two"' }), careless]) {
      const { url } = await server(cutOff(400_000), second);
      expect(await fetched(url)).toEqual(values.map((v) => -v));
    }
  });

  it('comes from a server without ranges, through redirects, and after errors that pass', async () => {
    const whole = (_: IncomingMessage, response: ServerResponse): void => void response.writeHead(200, { 'content-length': file.length }).end(file);
    const { url, asked } = await server(cutOff(400_000), status(503), status(429), whole);
    expect(await fetched(url, folder(), { sha256 })).toEqual(values);
    expect(asked).toEqual(['all', 'bytes=400000-', 'bytes=400000-', 'bytes=400000-']);
    const { url: away } = await server((_, response) => void response.writeHead(302, { location: url }).end());
    expect(await fetched(away)).toEqual(values);
  });

  it('is fetched once by two who ask at the same time', async () => {
    const { url, asked } = await server((request, response) => void setTimeout(() => good()(request, response), 100));
    const at = folder();
    expect(await Promise.all([fetched(url, at), fetched(url, at), fetched(url, at)])).toEqual([values, values, values]);
    expect(asked).toEqual(['all']);
  });

  it('takes over the lock of a process that is no more', async () => {
    const at = folder();
    const { url } = await server(good());
    const why = (await fetched(url, at, { offline: true }).catch((error: unknown) => error)) as CheckpointError;
    const place = /put it at (\S+)$/.exec(why.message)![1]!;
    writeFileSync(`${place}.lock`, JSON.stringify({ pid: 999_999_999, host: hostname() }));
    expect(await fetched(url, at)).toEqual(values);
  });

  it('is told of as the contract of progress says, where it is in the cache, where its length is not known, and while somebody else fetches it', async () => {
    const chunked = (_: IncomingMessage, response: ServerResponse): void => {
      response.write(file.subarray(0, 1000));
      setTimeout(() => response.end(file.subarray(1000)), 600);
    };
    const { url } = await server(chunked);
    const at = folder();
    const told = async (): Promise<{ step: number; total?: number | undefined; note?: string | undefined }[]> => {
      const events: { step: number; total?: number | undefined; note?: string | undefined }[] = [];
      await fetched(url, at, { onProgress: (event: (typeof events)[number]) => events.push(event) });
      return events;
    };
    const both = await Promise.all([told(), told()]);
    const ends = both.map((events) => events.filter(({ step, total }) => step === total).map(({ step }) => step));
    expect(ends).toEqual([[file.length], [file.length]]);
    expect(both.flatMap((events) => events.flatMap(({ note }) => note ?? []))).toEqual([expect.stringMatching(/^waiting for process \d+ of .*, which fetches it/)]);
    expect(await told()).toMatchObject([{ step: file.length, total: file.length }]);
  });

  it('begins anew where the notes of the half that is here are broken', async () => {
    const { url, asked } = await server(good());
    for (const notes of ['', '{"etag":"\\"on', 'null']) {
      const at = folder();
      const why = (await fetched(url, at, { offline: true }).catch((error: unknown) => error)) as CheckpointError;
      const place = /put it at (\S+)$/.exec(why.message)![1]!;
      writeFileSync(`${place}.part`, 'half');
      writeFileSync(`${place}.part.json`, notes);
      expect(await fetched(url, at)).toEqual(values);
      expect(readdirSync(at)).toHaveLength(1);
    }
    expect(new Set(asked)).toEqual(new Set(['all']));
  });
});

describe('what is not the file is refused, and not used', () => {
  it('by its hash: kept aside', async () => {
    const wrong = Uint8Array.from(file, (b, i) => (i === 1000 ? b ^ 1 : b));
    const { url } = await server(good(wrong));
    const at = folder();
    await expect(fetched(url, at, { sha256 })).rejects.toThrow(new RegExp(`has SHA-256 \\w{64}, expected ${sha256}.*kept as .*\\.rejected and not used`));
    expect(readdirSync(at)).toEqual([expect.stringMatching(/\.rejected$/)]);
    await expect(fetched(url, at, { offline: true })).rejects.toThrow('not in the cache');
  });

  it('by its hash, also where it is in the cache', async () => {
    const { url, asked } = await server(good());
    const at = folder();
    await fetched(url, at);
    await expect(fetched(url, at, { sha256: '0'.repeat(64) })).rejects.toThrow(new RegExp(`has SHA-256 ${sha256}, expected 0{64}: it is damaged or another file; remove it and try again`));
    const steps: string[] = [];
    expect(await fetched(url, at, { sha256: sha256.toUpperCase(), offline: true, onProgress: ({ task, step, total }: { task: string; step: number; total?: number }) => steps.push(`${task.replace(/ .*/, '')} ${step}/${total}`) })).toEqual(values);
    expect(steps).toEqual([`verify ${file.length}/${file.length}`, `fetch ${file.length}/${file.length}`]);
    await expect(fetched(url, at, { sha256, signal: AbortSignal.abort() })).rejects.toBeInstanceOf(CancelledError);
    expect(asked).toEqual(['all']);
  });

  it('a page in its place: it is not kept, and the server is asked again', async () => {
    const page = '\n<!DOCTYPE html><html>Sign in to the network</html>';
    const at = folder();
    for (const type of ['text/html; charset=utf-8', 'application/octet-stream']) {
      const { url, asked } = await server((_, r) => void r.writeHead(200, { 'content-type': type }).end(page), good());
      await expect(fetched(url, at)).rejects.toThrow(/sent a page \(HTML\) in place of \w+-a_20model\.safetensors; open its address in a browser.*put it at/);
      expect(await fetched(url, at)).toEqual(values);
      expect(asked).toEqual(['all', 'all']);
    }
  });

  it('what is no checkpoint is set aside, also where it was in the cache', async () => {
    for (const wrong of ['nothing of the kind', 'PK but no archive', '']) {
      const at = folder();
      const { url, asked } = await server((_, r) => void r.writeHead(200).end(wrong), good());
      const error = await fetched(url, at).catch((e: unknown) => e);
      expect(error).toBeInstanceOf(CheckpointError);
      expect((error as Error).message).toMatch(/(no checkpoint|no zip archive|is empty).*It is kept as .*\.rejected and not used; try again, or fetch/);
      expect(readdirSync(at)).toEqual([expect.stringMatching(/\.rejected$/)]);
      expect(await fetched(url, at)).toEqual(values);
      expect(asked).toEqual(['all', 'all']);
    }
  });

  it.each([
    ['a part from elsewhere', [cutOff(400_000), (_: IncomingMessage, r: ServerResponse) => void r.writeHead(206, { 'content-range': `bytes 7-${file.length - 1}/${file.length}` }).end(file.subarray(7))], /asked for .* from byte 400000 and sent bytes 7-/],
    ['a part without its place', [cutOff(400_000), (_: IncomingMessage, r: ServerResponse) => void r.writeHead(206).end(file)], /sent no range/],
    ['no such file', [status(404)], /cannot be fetched from 127\.0\.0\.1:\d+: it answered with status 404.*put it at/],
    ['nothing but errors', [status(500)], /status 500/],
    ['nothing at all', [stall(0)], /nothing came for 1 s/],
    ['a page of its own', [(_: IncomingMessage, r: ServerResponse) => void r.writeHead(200, { 'content-type': 'text/html' }).end('<html>no')], /sent a page/],
  ])('%s', async (_name, answers, message) => {
    const { url } = await server(...answers);
    const at = folder();
    const error = await fetched(url, at, { retries: 1, ...impatient }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as Error).message).toMatch(message);
    expect(existsSync(join(at, 'w'))).toBe(false);
  });

  it('a host that is not there, with what to do by hand', async () => {
    await expect(fetched('http://127.0.0.1:1/x.safetensors', folder(), { retries: 0 })).rejects.toThrow(/cannot be fetched from 127\.0\.0\.1:1: .*To go on without: fetch http:\/\/127\.0\.0\.1:1\/x\.safetensors by other means and put it at/);
    await expect(fetched('nonsense')).rejects.toThrow(/checkpoint is "nonsense", expected a file, a URL, hf:/);
  });

  it('a folder that cannot be written', async () => {
    const { url } = await server(good());
    const at = join(folder(), 'file');
    writeFileSync(at, '');
    await expect(fetched(url, at)).rejects.toBeInstanceOf(CheckpointError);
  });
});

it('waiting for another tab of a page ends with the signal, as a cancelled task', async () => {
  const none = (): never => {
    throw new DOMException('none', 'NotFoundError');
  };
  // as the Web Locks specification says: an aborted wait rejects with the signal's reason
  const request = (_name: string, { signal }: { signal: AbortSignal }): Promise<never> => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));
  vi.stubGlobal('navigator', { storage: { getDirectory: async () => ({ getDirectoryHandle: async () => ({ getFileHandle: async () => none() }) }) }, locks: { request } });
  closers.push(() => vi.unstubAllGlobals());
  const notes: (string | undefined)[] = [];
  await expect(fetchFile('http://127.0.0.1:1/x.safetensors', browserCache(), { signal: AbortSignal.timeout(800), onProgress: ({ note }) => notes.push(note) })).rejects.toBeInstanceOf(CancelledError);
  expect(notes).toEqual(['waiting for another tab of this page, which fetches it']);
});

it.skipIf(process.platform !== 'linux')('a full disk keeps what came, and the next try goes on from there', async () => {
  const at = folder();
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', at], { stdio: 'ignore' });
  } catch {
    console.log('skipped: a full disk; mount is not allowed here');
    return;
  }
  try {
    const { url, asked } = await server(good());
    await expect(fetched(url, at, { sha256 })).rejects.toThrow(/is full; what has come is kept, and the next try goes on from there/);
    execFileSync('mount', ['-o', 'remount,size=4m', at]);
    expect(await fetched(url, at, { sha256 })).toEqual(values);
    expect(asked).toEqual(['all', expect.stringMatching(/^bytes=[1-9]\d+-$/)]);
  } finally {
    execFileSync('umount', [at]);
  }
});

describe('the hub', () => {
  it('tells the same to a browser as through its client', async () => {
    const hub = await server((_request, response) => void response.writeHead(206, { 'Content-Range': 'bytes 0-0/1234', ETag: '"abc"', 'X-Linked-ETag': `"${'0'.repeat(64)}"`, 'X-Linked-Size': '1234' }).end('x'));
    expect(await ask({ repository: 'somebody/something', path: 'model.safetensors', revision: 'v2' }, { hubUrl: new URL(hub.url).origin })).toEqual({ url: `${new URL(hub.url).origin}/somebody/something/resolve/v2/model.safetensors`, size: 1234, etag: `"${'0'.repeat(64)}"` });
  });

  it('tells size and hash of its files through its client; they are verified by them', async () => {
    const paths: string[] = [];
    const hub = await server((request, response) => {
      paths.push(request.url!);
      if (!request.url!.endsWith('/model.safetensors')) response.writeHead(404, { 'X-Error-Code': 'EntryNotFound' }).end();
      else if (request.headers.range === 'bytes=0-0') response.writeHead(206, { 'content-range': `bytes 0-0/${file.length}`, etag: '"x"', 'X-Linked-ETag': `"${sha256}"` }).end(file.subarray(0, 1));
      else good()(request, response);
    });
    const hubUrl = new URL(hub.url).origin;
    expect(await fetched('hf://somebody/something@v2/model.safetensors', folder(), { hubUrl })).toEqual(values);
    expect(paths[0]).toBe('/somebody/something/resolve/v2/model.safetensors');
    await expect(fetched('hf://somebody/something/other.bin', folder(), { hubUrl })).rejects.toThrow(/the hub has no other\.bin in somebody\/something/);
    const closed = await server((_request, response) => void response.writeHead(401).end());
    await expect(fetched('hf://somebody/secret/model.safetensors', folder(), { hubUrl: new URL(closed.url).origin })).rejects.toThrow(/only to those it knows \(status 401\); accept its terms there and pass a token/);
    const asked: (string | undefined)[] = [];
    const failing = await server((request, response) => {
      asked.push(request.headers.authorization);
      response.writeHead(500).end();
    });
    await expect(fetched('hf://somebody/secret/model.safetensors', folder(), { hubUrl: new URL(failing.url).origin, hubToken: 'hf_key' })).rejects.toThrow(/the hub answered 500/);
    expect(asked).toEqual(['Bearer hf_key']);
    const lying = await server((request, response) => {
      if (request.headers.range === 'bytes=0-0') response.writeHead(206, { 'content-range': `bytes 0-0/${file.length}`, 'X-Linked-ETag': `"${'0'.repeat(64)}"` }).end(file.subarray(0, 1));
      else good()(request, response);
    });
    await expect(fetched('hf://somebody/something/model.safetensors', folder(), { hubUrl: new URL(lying.url).origin })).rejects.toThrow(/expected 0{64}/);
  });

  it('gives what is not public to those with a token, and the token to nobody else', async () => {
    const seen: string[] = [];
    const elsewhere = await server((request, response) => {
      seen.push(`elsewhere ${request.headers.authorization}`);
      good()(request, response);
    });
    const hub = await server((request, response) => {
      seen.push(`hub ${request.headers.range} ${request.headers.authorization}`);
      if (request.headers.authorization === undefined) response.writeHead(401).end();
      else if (request.headers.range === 'bytes=0-0') response.writeHead(206, { 'content-range': `bytes 0-0/${file.length}`, etag: '"x"', 'X-Linked-ETag': `"${sha256}"` }).end(file.subarray(0, 1));
      else if (request.url!.includes('large')) response.writeHead(302, { location: elsewhere.url.replace('127.0.0.1', 'localhost') }).end();
      else good()(request, response);
    });
    const options = { hubUrl: new URL(hub.url).origin, hubToken: 'hf_key', retries: 0 };
    expect(await fetched('hf://somebody/secret/model.safetensors', folder(), options)).toEqual(values);
    expect(await fetched('hf://somebody/secret/large.safetensors', folder(), options)).toEqual(values);
    await fetched('hf://somebody/secret/model.safetensors', folder(), { ...options, headers: { authorization: 'Bearer own' } });
    const ask = 'hub bytes=0-0 Bearer hf_key';
    expect(seen).toEqual([ask, 'hub undefined Bearer hf_key', ask, 'hub undefined Bearer hf_key', 'elsewhere undefined', ask, 'hub undefined Bearer own']);
    seen.length = 0;
    expect(await fetched(elsewhere.url, folder(), options)).toEqual(values);
    expect(seen).toEqual(['elsewhere undefined']);
  });

  it('known checkpoints have addresses, names and licences of their own', async () => {
    const all = Object.values(knownCheckpoints);
    expect(new Set(all.map(({ from: place }) => place)).size).toBe(all.length);
    expect(new Set(all.map(({ file: name }) => name)).size).toBe(all.length);
    for (const { from: place, licence, file: name } of all) expect([place, licence, name]).toEqual([expect.stringMatching(/^(https|hf):\/\//), expect.stringMatching(/./), expect.stringMatching(/^[\w.-]+$/)]);
    const at = folder();
    writeFileSync(join(at, 'sd-vae-ft-ema.safetensors'), file);
    await using kept = await fetchFile('sd-vae-ft-ema', nodeCache(at), { offline: true });
    expect(kept.size).toBe(file.length);
    await expect(fetchFile('tinydit-d14', nodeCache(at), { offline: true })).rejects.toThrow(/fetch https:\/\/github\.com\/VainF\/TinyFusion\/releases\/download\/v1\.0\.0\/TinyDiT-D14-MaskedKD-500K\.pt by other means/);
    expect(readFileSync(join(at, 'sd-vae-ft-ema.safetensors')).length).toBe(file.length);
  });
});

// The browser's cache, in a browser's own file system; the web is played.
import { CheckpointError, createRng } from '@tinyfusion/core';
import { afterEach, expect, it, vi } from 'vitest';
import { browserCache, fetchCheckpoint, toFloat32, writableTensor, writeSafetensors } from '../src/index.js';

const values = createRng(1).normal(50_000);
const file = writeSafetensors([['w', writableTensor(values, [50, 1000])]]);
const asked: (string | null)[] = [];

/** Answers a request, the first `cut` bytes alone if that is given, and then an end that comes too early. */
function web(cut?: number): void {
  vi.stubGlobal('fetch', async (_url: string, { headers = {} }: { headers?: Record<string, string> } = {}) => {
    const from = Number(/^bytes=(\d+)-/.exec(headers['Range'] ?? '')?.[1] ?? 0);
    asked.push(headers['Range'] ?? null);
    const head = { etag: '"one"', 'content-length': String(file.length - from), ...(from > 0 ? { 'content-range': `bytes ${from}-${file.length - 1}/${file.length}` } : {}) };
    return new Response(file.slice(from, cut), { status: from > 0 ? 206 : 200, headers: head });
  });
}

afterEach(() => vi.unstubAllGlobals());

const sha256 = async (): Promise<string> => Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', file)), (b) => b.toString(16).padStart(2, '0')).join('');

it('keeps what it fetched, goes on where it ended, and refuses what is not the file', async () => {
  const cache = browserCache(`test-${Date.now()}`);
  const read = async (options = {}): Promise<Float32Array> => {
    await using checkpoint = await fetchCheckpoint('https://example.org/model.safetensors', cache, { backoff: 1, retries: 0, ...options });
    return toFloat32(checkpoint.tensors.get('w')!);
  };
  await expect(read({ offline: true })).rejects.toThrow(/not in the cache.*private file system/);
  web(20_000);
  await expect(read()).rejects.toBeInstanceOf(CheckpointError);
  web();
  expect(await read({ sha256: await sha256() })).toEqual(values);
  expect(asked).toEqual([null, 'bytes=20000-', 'bytes=20000-']);
  vi.unstubAllGlobals();
  expect(await read({ offline: true })).toEqual(values);

  const other = browserCache(`other-${Date.now()}`);
  web();
  await expect(fetchCheckpoint('https://example.org/model.safetensors', other, { sha256: '0'.repeat(64) })).rejects.toThrow(/expected 0{64}.*rejected and not used/);
  expect(await other.open('model.safetensors')).toBe(undefined);
});

it('begins anew where notes are broken, sets aside what is no checkpoint, and tells whom it waits for', async () => {
  const folder = `broken-${Date.now()}`;
  const cache = browserCache(folder);
  const read = async (options = {}): Promise<Float32Array> => {
    await using checkpoint = await fetchCheckpoint('https://example.org/model.safetensors', cache, { backoff: 1, retries: 0, ...options });
    return toFloat32(checkpoint.tensors.get('w')!);
  };
  web(20_000);
  await expect(read()).rejects.toBeInstanceOf(CheckpointError);
  const directory = await (await navigator.storage.getDirectory()).getDirectoryHandle(folder);
  const names = async (): Promise<string[]> => {
    const found: string[] = [];
    for await (const name of (directory as unknown as { keys(): AsyncIterable<string> }).keys()) found.push(name);
    return found.toSorted();
  };
  const write = async (name: string, text: string): Promise<void> => {
    const to = await (await directory.getFileHandle(name, { create: true })).createWritable();
    await to.write(text);
    await to.close();
  };
  const notes = (await names()).find((name) => name.endsWith('.part.json'))!;
  const name = notes.slice(0, -'.part.json'.length);
  await write(notes, '{"etag":');
  web();
  expect(await read()).toEqual(values);
  await write(name, 'nothing of the kind');
  await expect(read()).rejects.toThrow(/no checkpoint.*It is kept as .*\.rejected and not used/);
  expect(await names()).toEqual([`${name}.rejected`]);

  const told: (string | undefined)[] = [];
  let free = (): void => {};
  const held = cache.exclusively(name, () => new Promise<void>((resolve) => (free = resolve)));
  const cancelled = read({ signal: AbortSignal.timeout(1000), onProgress: ({ note }: { note?: string }) => told.push(note) });
  await expect(cancelled).rejects.toMatchObject({ code: 'CANCELLED' });
  expect(told).toEqual(['waiting for another tab of this page, which fetches it']);
  free();
  await held;
  expect(await read()).toEqual(values);
});

// Locks that were left behind: by processes that are gone, by others with their number, by machines that cannot be seen.
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { CancelledError, CheckpointError } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { folderCache } from '../src/fetch/folder-cache.js';
import { makeLock, readLock, removeLock } from '../src/file-lock.js';
import { fileSource } from '../src/node.js';

const folder = (): string => mkdtempSync(join(tmpdir(), 'locks-'));
const dead = spawnSync(process.execPath, ['-e', '']).pid;
const linux = process.platform === 'linux';
const space = linux ? readlinkSync('/proc/self/ns/pid') : undefined;

/** Takes the cache's lock of `x` where somebody left `holder` in it. */
async function take(holder: object | string, { silence = 60_000, beat = 60_000, patience = 3000 } = {}): Promise<{ took: number; notes: string[]; place: string }> {
  const at = folder();
  const place = join(at, 'x.lock');
  writeFileSync(place, typeof holder === 'string' ? holder : JSON.stringify(holder));
  const notes: string[] = [];
  const began = performance.now();
  let took = 0;
  await folderCache(fileSource, at, { silence, beat }).exclusively('x', async () => void (took = performance.now() - began), AbortSignal.timeout(patience), (note) => notes.push(note));
  expect(readdirSync(at)).toEqual([]);
  return { took, notes, place };
}

describe('a lock that was left behind', () => {
  it('by a process that is gone is taken over at once', async () => {
    expect((await take({ pid: dead, host: hostname(), space })).took).toBeLessThan(2000);
  });

  it.skipIf(!linux)('by an earlier process with the number of this one, as in a container that was started again', async () => {
    expect((await take({ pid: process.pid, host: hostname(), started: '1', space })).took).toBeLessThan(2000);
  });

  it('by a machine or a container that cannot be seen is taken over when no sign of life comes, and said meanwhile', async () => {
    for (const holder of [{ pid: 1, host: 'f00dfeed' }, ...(linux ? [{ pid: process.pid, host: hostname(), space: 'pid:[1]' }] : [])]) {
      const { took, notes, place } = await take(holder, { silence: 500 });
      expect(took).toBeGreaterThan(490);
      expect(notes).toEqual([`waiting for process ${holder.pid} of ${holder.host}, which fetches it; where nobody does, delete ${place}`]);
    }
    expect((await take('damaged', { silence: 300 })).notes).toEqual([expect.stringMatching(/^waiting for whoever fetches it; where nobody does, delete /)]);
  });

  it('is waited for while signs of life come, and no longer than the signal', async () => {
    const at = folder();
    writeFileSync(join(at, 'x.lock'), JSON.stringify({ pid: 1, host: 'f00dfeed' }));
    const other = (await makeLock(join(at, 'y.lock')))!;
    const text = readFileSync(join(at, 'x.lock'), 'utf8');
    const beats = setInterval(() => writeFileSync(join(at, 'x.lock'), text), 100);
    try {
      await expect(folderCache(fileSource, at, { silence: 500 }).exclusively('x', async () => {}, AbortSignal.timeout(1500))).rejects.toBeInstanceOf(CancelledError);
    } finally {
      clearInterval(beats);
      await other.release();
    }
    expect(readdirSync(at)).toEqual(['x.lock']);
  });

  it('of this process is waited for, and shows that it is alive', async () => {
    const at = folder();
    const cache = folderCache(fileSource, at, { beat: 50, silence: 300 });
    const order: string[] = [];
    await Promise.all([
      cache.exclusively('x', async () => {
        const before = (await readLock(join(at, 'x.lock')))!.modified;
        await new Promise((resolve) => setTimeout(resolve, 800));
        expect((await readLock(join(at, 'x.lock')))!.modified).toBeGreaterThan(before);
        order.push('first');
      }),
      new Promise((resolve) => setTimeout(resolve, 50)).then(() => cache.exclusively('x', async () => void order.push('second'))),
    ]);
    expect(order).toEqual(['first', 'second']);
  });
});

describe('taking a lock over', () => {
  it('removes no lock that was made since', async () => {
    const path = join(folder(), 'lock');
    writeFileSync(path, JSON.stringify({ pid: dead, host: hostname() }));
    const left = (await readLock(path))!;
    await removeLock(path, left);
    const own = (await makeLock(path))!;
    await removeLock(path, left);
    expect((await readLock(path))?.holder?.pid).toBe(process.pid);
    // nor does who was taken for gone
    writeFileSync(path, 'another’s');
    await own.release();
    expect(existsSync(path)).toBe(true);
  });

  it('goes on where who took it over died in the middle', async () => {
    const path = join(folder(), 'lock');
    for (const name of [path, `${path}.takeover`]) writeFileSync(name, JSON.stringify({ pid: dead, host: hostname() }));
    for (let i = 0; i < 3 && existsSync(path); i++) await removeLock(path, (await readLock(path))!);
    expect(existsSync(path)).toBe(false);
    expect(existsSync(`${path}.takeover`)).toBe(false);
  });

  it('is one’s alone, of several that find it at the same moment', async () => {
    const at = folder();
    const cache = folderCache(fileSource, at);
    let most = 0;
    for (let round = 0; round < 40; round++) {
      writeFileSync(join(at, 'x.lock'), JSON.stringify({ pid: dead, host: hostname() }));
      let now = 0;
      const take = () => cache.exclusively('x', async () => {
        most = Math.max(most, ++now);
        await new Promise((resolve) => setTimeout(resolve, 3));
        now--;
      });
      await Promise.all(Array.from({ length: 6 }, take));
    }
    expect(most).toBe(1);
    expect(readdirSync(at)).toEqual([]);
  });
});

it('a part that somebody else wrote too is no file: it is removed, and fetched anew', async () => {
  const at = folder();
  const cache = folderCache(fileSource, at);
  const part = await cache.partial('x');
  await part.begin({ etag: '"one"' }, { restart: true });
  await part.append(Uint8Array.of(1, 2, 3));
  appendFileSync(join(at, 'x.part'), 'more');
  const error = await part.commit().catch((e: unknown) => e);
  expect(error).toBeInstanceOf(CheckpointError);
  expect((error as Error).message).toMatch(/x\.part has 7 bytes where 3 came: somebody else wrote it too\. It was removed/);
  expect(readdirSync(at)).toEqual([]);
});

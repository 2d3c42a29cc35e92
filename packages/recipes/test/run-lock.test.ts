// A run's folder that several processes want at once, after one that left its lock behind.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { holderOf, lockFolder } from '../src/runs/run-lock.js';

const dead = spawnSync(process.execPath, ['-e', '']).pid;

it('is one’s alone, of several that find a lock that was left behind', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'run-lock-'));
  for (let round = 0; round < 5; round++) {
    writeFileSync(join(folder, 'lock'), JSON.stringify({ pid: dead, host: hostname() }));
    expect(await holderOf(folder)).toBe(undefined);
    const all = await Promise.allSettled(Array.from({ length: 6 }, () => lockFolder(folder)));
    const unlock = all.flatMap((one) => (one.status === 'fulfilled' ? one.value : []));
    expect(unlock).toHaveLength(1);
    for (const one of all) if (one.status === 'rejected') expect((one.reason as Error).message).toMatch(new RegExp(`written by process ${process.pid} of this machine; wait for it, .* delete ${join(folder, 'lock')}`));
    expect(await holderOf(folder)).toEqual({ pid: process.pid, host: hostname() });
    await unlock[0]!();
    expect(readdirSync(folder)).toEqual([]);
  }
});

it('leaves a lock alone whose holder is just writing it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'run-lock-'));
  const path = join(folder, 'lock');
  writeFileSync(path, '');
  const text = JSON.stringify({ pid: process.ppid, host: hostname() });
  setTimeout(() => writeFileSync(path, text), 300);
  await expect(lockFolder(folder)).rejects.toThrow(new RegExp(`written by process ${process.ppid}`));
  expect(readFileSync(path, 'utf8')).toBe(text);
});

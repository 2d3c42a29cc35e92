import { CheckpointError } from '@tinyfusion/core';
import { type LockFile, type LockHolder, holderLives, makeLock, readLock, removeLock } from '@tinyfusion/weights/node';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** How long a holder is waited for, in ms: one that was just told to end needs a moment to be gone, one that begins to write its name. */
const PATIENCE = 3000;

/** How often a lock is asked for that others take, and leave behind, at the same moment. */
const ATTEMPTS = 20;

/**
 * Makes sure that no other process writes a folder, or what of it has a lock of another name. A lock whose process is gone is taken over by one of those who find it;
 * one whose process ends within three seconds too.
 * @returns what unlocks the folder
 * @throws CheckpointError that names who writes it
 */
export async function lockFolder(folder: string, name = 'lock'): Promise<() => Promise<void>> {
  const path = join(folder, name);
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const own = await makeLock(path).catch((error: Error) => {
      throw new CheckpointError(`${folder} cannot be locked: ${error.message}`, { cause: error });
    });
    if (own !== undefined) return own.release;
    const found = await written(path);
    if (found?.holder !== undefined) {
      const { pid, host } = found.holder;
      if (host !== hostname()) throw new CheckpointError(`${folder} is being written by process ${pid} on ${host}; wait for it, or if it is gone delete ${path}`);
      if (!(await ends(found.holder, PATIENCE))) throw new CheckpointError(`${folder} is being written by process ${pid} of this machine; wait for it, or use another folder; if it is no run of yours delete ${path}`);
    }
    if (found !== undefined) await removeLock(path, found);
    if (attempt > 0) await sleep(20);
  }
  throw new CheckpointError(`${folder} cannot be locked: others take it at the same moment; use another folder`);
}

/** Who writes a folder now; `undefined` where nobody does, as far as this machine can tell. */
export async function holderOf(folder: string): Promise<{ pid: number; host: string } | undefined> {
  const holder = (await readLock(join(folder, 'lock')))?.holder;
  if (holder === undefined || (holder.host === hostname() && !(await holderLives(holder)))) return undefined;
  return { pid: holder.pid, host: holder.host };
}

/** The lock that is there, when its holder had the time to write it; without one, whoever made it was killed before. */
async function written(path: string): Promise<LockFile | undefined> {
  for (const until = Date.now() + PATIENCE; ; await sleep(50)) {
    const found = await readLock(path);
    if (found === undefined || found.holder !== undefined || Date.now() >= until) return found;
  }
}

/** Waits for a process of this machine to end. */
async function ends(holder: LockHolder, patience: number): Promise<boolean> {
  for (const until = Date.now() + patience; await holderLives(holder); await sleep(100)) if (Date.now() >= until) return false;
  return true;
}

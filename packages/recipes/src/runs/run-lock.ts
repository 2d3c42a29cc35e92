import { CheckpointError } from '@tinyfusion/core';
import { open, readFile, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

interface Holder {
  pid: number;
  host: string;
  /** When the process started, by the system's clock; tells a process from a later one with its number. */
  started: string | undefined;
}

/** How long a holder is waited for, in ms: one that was just told to end needs a moment to be gone. */
const PATIENCE = 3000;

/**
 * Makes sure that no other process writes a folder. A lock whose process is gone is taken over; one whose process ends
 * within three seconds too.
 * @returns what unlocks the folder
 * @throws CheckpointError that names who writes it
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, 'lock');
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const handle = await open(path, 'wx');
      try {
        await handle.writeFile(JSON.stringify({ pid: process.pid, host: hostname(), started: (await statOf(process.pid))?.started } satisfies Holder));
      } finally {
        await handle.close();
      }
      return () => rm(path, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw new CheckpointError(`${folder} cannot be locked: ${(error as Error).message}`, { cause: error });
    }
    const holder = await readHolder(path);
    if (holder !== undefined && holder.host !== hostname()) throw new CheckpointError(`${folder} is being written by process ${holder.pid} on ${holder.host}; wait for it, or if it is gone delete ${path}`);
    if (holder !== undefined && !(await ends(holder, PATIENCE))) throw new CheckpointError(`${folder} is being written by process ${holder.pid} of this machine; wait for it, or use another folder`);
    await rm(path, { force: true });
  }
  throw new CheckpointError(`${folder} cannot be locked: others take it at the same moment; use another folder`);
}

/** Who writes a folder now; `undefined` where nobody does, as far as this machine can tell. */
export async function holderOf(folder: string): Promise<{ pid: number; host: string } | undefined> {
  const holder = await readHolder(join(folder, 'lock'));
  if (holder === undefined || (holder.host === hostname() && !(await lives(holder)))) return undefined;
  return { pid: holder.pid, host: holder.host };
}

/** `undefined` where the lock is empty or broken: whoever made it was killed while it did. */
async function readHolder(path: string): Promise<Holder | undefined> {
  try {
    const { pid, host, started } = JSON.parse(await readFile(path, 'utf8')) as Partial<Holder>;
    return Number.isInteger(pid) && typeof host === 'string' ? { pid: pid!, host, started } : undefined;
  } catch {
    return undefined;
  }
}

/** Waits for a process of this machine to end. */
async function ends(holder: Holder, patience: number): Promise<boolean> {
  for (const until = Date.now() + patience; await lives(holder); await sleep(100)) if (Date.now() >= until) return false;
  return true;
}

async function lives({ pid, started }: Holder): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // no right to signal it: it is there
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  const stat = await statOf(pid);
  // a process that has ended keeps its number until its parent asks how: in a container without an init nobody does
  return stat === undefined ? started === undefined : !/^[ZX]$/.test(stat.state) && (started === undefined || started === stat.started);
}

/** Fields 3 and 22 of /proc/<pid>/stat, where there is one. */
async function statOf(pid: number): Promise<{ state: string; started: string } | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { state: fields[0]!, started: fields[19]! };
  } catch {
    return undefined;
  }
}

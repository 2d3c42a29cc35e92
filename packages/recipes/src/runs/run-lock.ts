import { CheckpointError } from '@tinyfusion/core';
import { open, readFile, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

interface Holder {
  pid: number;
  host: string;
  /** When the process started, by the system's clock; tells a process from a later one with its number. */
  started: string | undefined;
}

/**
 * Makes sure that no other process writes a folder. A lock whose process is gone is taken over.
 * @returns what unlocks the folder
 * @throws CheckpointError that names who writes it
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, 'lock');
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const handle = await open(path, 'wx');
      try {
        await handle.writeFile(JSON.stringify({ pid: process.pid, host: hostname(), started: await startOf(process.pid) } satisfies Holder));
      } finally {
        await handle.close();
      }
      return () => rm(path, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw new CheckpointError(`${folder} cannot be locked: ${(error as Error).message}`, { cause: error });
    }
    const holder = await readHolder(path);
    if (holder !== undefined && holder.host !== hostname()) throw new CheckpointError(`${folder} is being written by process ${holder.pid} on ${holder.host}; wait for it, or if it is gone delete ${path}`);
    if (holder !== undefined && (await lives(holder))) throw new CheckpointError(`${folder} is being written by process ${holder.pid} of this machine; wait for it, or use another folder`);
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

async function lives({ pid, started }: Holder): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // no right to signal it: it is there
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  return started === undefined || started === (await startOf(pid));
}

/** Field 22 of /proc/<pid>/stat, where there is one. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

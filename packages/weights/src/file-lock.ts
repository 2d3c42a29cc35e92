import { randomBytes } from 'node:crypto';
import { open, readFile, readlink, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';

/** Who has a lock. */
export interface LockHolder {
  pid: number;
  host: string;
  /** When the process started, by the system's clock; tells a process from a later one with its number. */
  started?: string | undefined;
  /** Inside of which numbers of processes mean something: containers of one host have their own. */
  space?: string | undefined;
}

/** A lock file that is there. */
export interface LockFile {
  text: string;
  /** `undefined` where it is empty or broken: it is being written, or whoever made it was killed while it did. */
  holder: LockHolder | undefined;
  modified: number;
}

/** A lock that this process has. */
export interface OwnLock {
  release(): Promise<void>;
  /** Makes the file new, as a sign of life for machines that cannot see this process. */
  touch(): Promise<void>;
}

/**
 * Makes a lock file where there is none.
 * @returns nothing where there is one
 * @throws what the disk says
 */
export async function makeLock(path: string): Promise<OwnLock | undefined> {
  const { pid } = process;
  // the token makes each lock's text its own
  const text = JSON.stringify({ pid, host: hostname(), started: (await statOf(pid))?.started, space: await ownSpace(), token: randomBytes(8).toString('hex') });
  try {
    const handle = await open(path, 'wx');
    try {
      await handle.writeFile(text);
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    } finally {
      await handle.close();
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return undefined;
    throw error;
  }
  return {
    release: async () => {
      // it may have been taken for abandoned, while this machine slept
      if ((await readFile(path, 'utf8').catch(() => undefined)) === text) await rm(path, { force: true });
    },
    touch: () => utimes(path, new Date(), new Date()).catch(() => {}),
  };
}

/** The lock that is there; nothing where there is none. */
export async function readLock(path: string): Promise<LockFile | undefined> {
  const [text, found] = await Promise.all([readFile(path, 'utf8').catch(() => undefined), stat(path).catch(() => undefined)]);
  return text === undefined || found === undefined ? undefined : { text, holder: parse(text), modified: found.mtimeMs };
}

function parse(text: string): LockHolder | undefined {
  try {
    const { pid, host, started, space } = JSON.parse(text) as Partial<LockHolder>;
    return Number.isInteger(pid) && typeof host === 'string' ? { pid: pid!, host, started, space } : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Removes a lock that its holder left behind. Of all who find it at once one removes it, and no lock that was made since:
 * it is removed by who has a second lock, if it is still the same then.
 */
export async function removeLock(path: string, { text }: LockFile): Promise<void> {
  const guard = `${path}.takeover`;
  const own = await makeLock(guard);
  if (own === undefined) {
    // held for a moment; of who died in that moment it is taken over as the lock itself
    const held = await readLock(guard);
    if (held !== undefined && (await isLeft(held, Date.now() - held.modified))) await removeLock(guard, held);
    return;
  }
  try {
    if ((await readLock(path))?.text === text) await rm(path, { force: true });
  } finally {
    await own.release();
  }
}

/** How long a lock stays empty at most, in ms: its holder is written at once. */
const UNWRITTEN = 10_000;

/** How long no sign comes from a living holder at most, in ms: a network's disk may tell of it a minute late. */
export const SILENCE = 120_000;

/**
 * Whether a lock's holder is gone: by its process, where that can be seen from here, else by its silence.
 * @param silent how long the file has not changed, in ms
 */
export async function isLeft({ text, holder }: LockFile, silent: number, silence = SILENCE): Promise<boolean> {
  if (holder === undefined) return silent > (text === '' ? UNWRITTEN : silence);
  if (!(await isHere(holder))) return silent > silence;
  // without the time of its start it may be another process with its number
  return !(await holderLives(holder)) || (holder.started === undefined && silent > silence);
}

/** Whether a holder's number is that of a process which can be seen from here. */
async function isHere({ host, space }: LockHolder): Promise<boolean> {
  return host === hostname() && (space === undefined || space === (await ownSpace()));
}

/** Whether a process of this machine has a lock: not one that has ended, nor a later one with its number. */
export async function holderLives({ pid, started }: LockHolder): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // no right to signal it: it is there
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  const found = await statOf(pid);
  // a process that has ended keeps its number until its parent asks how: in a container without an init nobody does
  return found === undefined ? started === undefined : !/^[ZX]$/.test(found.state) && (started === undefined || started === found.started);
}

/** Fields 3 and 22 of /proc/<pid>/stat, where there is one. */
async function statOf(pid: number): Promise<{ state: string; started: string } | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { state: fields[0]!, started: fields[19]! };
  } catch {
    return undefined;
  }
}

/** This process's space of process numbers, where the system has such. */
const ownSpace = (): Promise<string | undefined> => readlink('/proc/self/ns/pid').catch(() => undefined);

import { CheckpointError, TinyFusionError } from '@tinyfusion/core';
import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/**
 * Writes a file beside its place, syncs it to the disk and renames it, so that whatever happens there is the old file or
 * the new one, whole. The folder that it lies in is made.
 * @throws CheckpointError where it cannot be written; the old file is intact
 */
export async function writeFileAtomic(path: string, bytes: Uint8Array | string): Promise<void> {
  await writeAtomic(path, (handle) => handle.writeFile(bytes));
}

/**
 * Like {@link writeFileAtomic} for what is written part by part: a file that is there whole or not at all, whatever
 * `write` does with the handle, which is closed for it.
 * @throws CheckpointError where it cannot be written, and whatever `write` throws of ours; the old file is intact
 */
export async function writeAtomic(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const beside = `${path}.${randomBytes(4).toString('hex')}.part`;
  await makeFolder(dirname(path));
  try {
    const handle = await open(beside, 'wx');
    try {
      await write(handle);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(beside, path);
  } catch (cause) {
    await rm(beside, { force: true });
    if (TinyFusionError.isInstance(cause)) throw cause;
    throw new CheckpointError(`${path} cannot be written: ${diskReason(cause)}`, { cause });
  }
  await syncFolder(dirname(path));
}

/** Makes a folder, and those that it lies in, where they are not there. @throws CheckpointError where it cannot be made */
export async function makeFolder(path: string): Promise<void> {
  try {
    await makeMissing(path);
  } catch (cause) {
    throw new CheckpointError(`the folder ${path} cannot be made: ${placeReason(cause)}`, { cause });
  }
}

/** Not by Node's own `recursive`, which never ends where a folder that is there takes no new ones, as /proc. */
async function makeMissing(path: string): Promise<void> {
  const attempt = () => mkdir(path).catch((error: NodeJS.ErrnoException) => error);
  let error = await attempt();
  if (error instanceof Error && error.code === 'ENOENT' && dirname(path) !== path) {
    await makeMissing(dirname(path));
    error = await attempt();
  }
  if (error instanceof Error && !(await isFolder(path))) throw error;
}

const exists = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined)) !== undefined;

const isFolder = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined))?.isDirectory() === true;

/**
 * Whether a file can be written, asked before the work whose result it is to hold. Nothing is left of the question: folders
 * are made when the file is.
 * @throws CheckpointError where it cannot
 */
export async function checkWritable(path: string): Promise<void> {
  const refuse = (what: string, cause: unknown): never => {
    throw new CheckpointError(`${what}: ${placeReason(cause)}`, { cause });
  };
  if (await isFolder(path)) refuse(`${path} cannot be written`, Object.assign(new Error('a folder'), { code: 'EISDIR' }));
  // the nearest folder that is there has to take what is made in it
  let near = dirname(path);
  while (!(await exists(near)) && dirname(near) !== near) near = dirname(near);
  const what = near === dirname(path) ? `${path} cannot be written` : `the folder ${dirname(path)} cannot be made`;
  if (!(await isFolder(near))) refuse(`the folder ${dirname(path)} cannot be made`, Object.assign(new Error('a file'), { code: 'ENOTDIR' }));
  const trial = join(near, `${basename(path)}.${randomBytes(4).toString('hex')}.part`);
  try {
    await (await open(trial, 'wx')).close();
  } catch (cause) {
    refuse(what, cause);
  } finally {
    await rm(trial, { force: true });
  }
}

/** {@link diskReason} of something that is to be made in a folder that is there. */
const placeReason = (cause: unknown): string => ((cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'nothing can be made in that place' : diskReason(cause));

/** Makes renames in a folder durable, where the platform can. */
export async function syncFolder(path: string): Promise<void> {
  try {
    const folder = await open(path);
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch {
    // Windows opens no folders; the file itself is whole either way
  }
}

/** What a disk's error means, in words. */
export function diskReason(cause: unknown): string {
  const code = (cause as NodeJS.ErrnoException).code;
  if (code === 'ENOTDIR' || code === 'EEXIST') return 'a part of the path is a file';
  if (code === 'EROFS') return 'nothing can be written to this disk';
  if (code === 'ENOENT') return 'there is no such file or folder';
  if (code === 'ENOSPC') return 'the disk is full';
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied';
  if (code === 'EISDIR') return 'it is a folder';
  return cause instanceof Error ? cause.message : String(cause);
}

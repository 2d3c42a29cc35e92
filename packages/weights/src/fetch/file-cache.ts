import type { Source } from '../source.js';

/** What is remembered of a file that is half here, so that the other half comes from the same one. */
export interface PartialNote {
  etag?: string | undefined;
  lastModified?: string | undefined;
  total?: number | undefined;
}

/** A note as it was kept; an empty one where it is missing or broken, and the file begins anew. */
export function parseNote(text: string | undefined): PartialNote {
  let value: unknown;
  try {
    value = JSON.parse(text ?? '{}');
  } catch {
    // whoever wrote it was killed while it did
  }
  const { etag, lastModified, total } = Object(value) as Record<keyof PartialNote, unknown>;
  return {
    ...(typeof etag === 'string' ? { etag } : {}),
    ...(typeof lastModified === 'string' ? { lastModified } : {}),
    ...(typeof total === 'number' ? { total } : {}),
  };
}

/** A file that is being fetched. */
export interface PartialFile {
  /** Bytes that are here. */
  readonly size: number;
  readonly note: PartialNote;
  /** Remembers a note; with `restart` the bytes so far are dropped. */
  begin(note: PartialNote, options: { restart: boolean }): Promise<void>;
  append(bytes: Uint8Array): Promise<void>;
  /** Of all bytes, in hexadecimal. */
  sha256(): Promise<string>;
  /** Makes it the cache's file of its name, whole and on the disk. */
  commit(): Promise<void>;
  /** Keeps it aside under another name, which is returned. */
  reject(): Promise<string>;
  close(): Promise<void>;
}

/** Where fetched files are kept. */
export interface FileCache {
  /** Where a file of this name is or would be, for messages. */
  place(name: string): string;
  /** A whole file; nothing where there is none. Close it. */
  open(name: string): Promise<(Source & AsyncDisposable) | undefined>;
  /** Keeps a whole file aside under another name, which is returned: it is not what it should be. */
  setAside?(name: string): Promise<string>;
  /** A file that is half here, or a new one. */
  partial(name: string): Promise<PartialFile>;
  /**
   * Runs `task` while nobody else fetches a file of this name, in this process or another.
   * @param onWait is told whom it waits for
   */
  exclusively<T>(name: string, task: () => Promise<T>, signal?: AbortSignal, onWait?: (note: string) => void): Promise<T>;
}

import { CheckpointError } from '@tinyfusion/core';

/** Bytes that can be read in parts. */
export interface Source {
  /** What it is, for messages: a path, a URL, a file's name. */
  readonly name: string;
  /** Length in bytes. */
  readonly size: number;
  /** Exactly `length` bytes from `offset`; both lie inside the source. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Fills `into` with the bytes from `offset`: a long way through a file needs no new memory. */
  readInto?(into: Uint8Array, offset: number): Promise<void>;
}

/** A source over bytes in memory. */
export function bytesSource(bytes: Uint8Array, name = 'the file'): Source {
  return { name, size: bytes.byteLength, read: async (offset, length) => bytes.subarray(offset, offset + length) };
}

/** A source over a `Blob`, e.g. a `File` from an `<input>`. */
export function blobSource(blob: Blob, name = blob instanceof File ? blob.name : 'the blob'): Source {
  return {
    name,
    size: blob.size,
    read: async (offset, length) => {
      const bytes = new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
      if (bytes.byteLength !== length) throw new CheckpointError(`${name} ended early: ${length} bytes were expected at ${offset}, ${bytes.byteLength} came. It may have changed while it was read; open it again.`);
      return bytes;
    },
  };
}

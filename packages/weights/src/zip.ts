import { CheckpointError, TinyFusionError } from '@tinyfusion/core';
import { NoCheckpointError } from './no-checkpoint.js';
import type { Source } from './source.js';

/** A file inside a zip archive. */
export interface ZipEntry {
  name: string;
  /** Bytes when unpacked. */
  size: number;
  /** Everything, unpacked and checked against its CRC. @throws CheckpointError where it is damaged */
  read(): Promise<Uint8Array>;
  /** The first bytes, as many as there are up to `length`, without reading the rest. */
  readStart(length: number): Promise<Uint8Array>;
  /** Everything in parts, unpacked; it fails at its end where the CRC is another. */
  stream(): ReadableStream<Uint8Array>;
}

/** A file to put into an archive, whose bytes are asked for when its turn has come. */
export interface ZipFile {
  name: string;
  read(): Promise<Uint8Array>;
  /** The same in parts, taken where it is there. */
  stream?: (() => ReadableStream<Uint8Array>) | undefined;
}

/** Whether bytes begin as a zip archive does. */
export const isZip = (start: Uint8Array): boolean => start[0] === 0x50 && start[1] === 0x4b;

// loaded when the first archive is opened: zip.js reads by ranges and knows ZIP64, and is larger than all of this package
const zipJs = async () => {
  const zip = await import('@zip.js/zip.js/lib/zip-core-native.js');
  zip.configure({ useWebWorkers: false });
  return zip;
};

/** The entries of an archive by name. @throws CheckpointError where it is no archive, or cut off */
export async function openZip(source: Source): Promise<Map<string, ZipEntry>> {
  const { Reader, Uint8ArrayWriter, ZipReader } = await zipJs();
  class SourceReader extends Reader<Source> {
    constructor() {
      super(source);
      this.size = source.size;
    }
    override async readUint8Array(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
      const end = Math.min(source.size, offset + length);
      if (!(offset >= 0 && offset <= end)) throw new Error(`it points to byte ${offset} of ${source.size}`);
      try {
        return (await source.read(offset, end - offset)) as Uint8Array<ArrayBuffer>;
      } catch (cause) {
        unread.add(Object(cause) as object);
        throw cause;
      }
    }
  }
  const unread = new WeakSet<object>();
  /** The source's own failures stay what they are: it may give the same bytes at the next try. */
  const damaged = (what: string, cause: unknown, Kind = CheckpointError): unknown =>
    TinyFusionError.isInstance(cause) || unread.has(Object(cause) as object) ? cause : new Kind(`${source.name}: ${what}: ${cause instanceof Error ? cause.message : String(cause)}. The file is damaged or cut off; fetch it again.`, { cause });
  const entries = new Map<string, ZipEntry>();
  try {
    for await (const entry of new ZipReader(new SourceReader()).getEntriesGenerator()) {
      if (entry.directory) continue;
      const { filename: name, uncompressedSize: size } = entry;
      if (entries.has(name)) throw new CheckpointError(`${source.name}: the archive has ${JSON.stringify(name)} twice`);
      entries.set(name, {
        name,
        size,
        read: async () => {
          try {
            return await entry.getData(new Uint8ArrayWriter(), { checkSignature: true });
          } catch (cause) {
            throw damaged(name, cause);
          }
        },
        stream: () => {
          const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
          entry.getData(writable, { checkSignature: true }).catch((cause: unknown) => writable.abort(cause).catch(() => {}));
          const reader = readable.getReader();
          return new ReadableStream<Uint8Array>({
            pull: async (controller) => {
              try {
                const { done, value } = await reader.read();
                if (done) controller.close();
                else controller.enqueue(value);
              } catch (cause) {
                throw damaged(name, cause);
              }
            },
            cancel: (reason) => reader.cancel(reason),
          });
        },
        readStart: async (length) => {
          const parts: Uint8Array[] = [];
          const stop = new AbortController();
          let got = 0;
          const take = new WritableStream<Uint8Array>({
            write(chunk) {
              parts.push(chunk);
              got += chunk.length;
              if (got >= length) stop.abort();
            },
          });
          try {
            await entry.getData(take, { signal: stop.signal });
          } catch (cause) {
            if (!stop.signal.aborted) throw damaged(name, cause);
          }
          return new Uint8Array(await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer()).subarray(0, length);
        },
      });
    }
  } catch (cause) {
    throw damaged('it is no zip archive', cause, NoCheckpointError);
  }
  return entries;
}

/** How {@link writeZip} stores files. */
export interface WriteZipOptions {
  /** Default `false`: as they are. */
  compress?: boolean | undefined;
}

/** Writes an archive of files to a stream, one file at a time, and closes it. */
export async function writeZip(files: readonly ZipFile[], to: WritableStream<Uint8Array>, { compress = false }: WriteZipOptions = {}): Promise<void> {
  const { Uint8ArrayReader, ZipWriter } = await zipJs();
  const writer = new ZipWriter(to);
  // a fixed date, so that the same tensors are the same file
  const options = { level: compress ? 6 : 0, lastModDate: new Date(Date.UTC(1980, 0, 1)), extendedTimestamp: false };
  for (const { name, read, stream } of files) await writer.add(name, stream === undefined ? new Uint8ArrayReader(await read()) : stream(), options);
  await writer.close();
}

/** {@link writeZip} into memory. */
export async function zipBytes(files: readonly ZipFile[], options: WriteZipOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const [bytes] = await Promise.all([new Response(readable as ReadableStream<Uint8Array<ArrayBuffer>>).arrayBuffer(), writeZip(files, writable, options)]);
  return new Uint8Array(bytes);
}

import { DataError } from '@tinyfusion/core';

/** An array of an IDX file (the format of MNIST). */
export interface IdxArray {
  shape: number[];
  values: Uint8Array;
}

/**
 * Reads an IDX file of unsigned bytes, compressed with gzip or not.
 * @param source the file's name, for messages
 * @throws DataError where it is no IDX file, of another type, or not of the length that its header says
 */
export async function readIdx(bytes: Uint8Array, source = 'the file'): Promise<IdxArray> {
  const data = await gunzipIfPacked(bytes, source);
  if (data.length < 4 || data[0] !== 0 || data[1] !== 0) throw new DataError(`${source} is no IDX file: it should begin with two zero bytes`);
  if (data[2] !== 8) throw new DataError(`${source}: values of IDX type 0x${data[2]!.toString(16)} are not read, expected 0x08 (unsigned bytes)`);
  const rank = data[3]!;
  const start = 4 + 4 * rank;
  if (rank < 1 || data.length < start) throw new DataError(`${source} is cut off in its header`);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  const expected = shape.reduce((a, b) => a * b, 1);
  if (data.length - start !== expected) throw new DataError(`${source}: its header says [${shape.join(', ')}], which is ${expected} bytes; ${data.length - start} follow. The file is cut off or damaged; fetch it again.`);
  return { shape, values: data.subarray(start) };
}

/**
 * Unpacks what begins as gzip does, and gives back what does not: browsers unpack a `.gz` themselves where its server sends it
 * with `Content-Encoding: gzip`.
 * @param source the file's name, for messages
 * @throws DataError where the stream is damaged
 */
export async function gunzipIfPacked<T extends Uint8Array>(bytes: T, source: string): Promise<T | Uint8Array<ArrayBuffer>> {
  return bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzip(bytes, source) : bytes;
}

/** @throws DataError where the stream is damaged */
export async function gunzip(bytes: Uint8Array, source: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream('gzip'));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (cause) {
    throw new DataError(`${source} is damaged: its gzip stream does not unpack; fetch it again`, { cause });
  }
}

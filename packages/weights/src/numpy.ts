import { CheckpointError } from '@tinyfusion/core';
import { type DType, bytesPerValue } from './dtype.js';
import type { WritableTensor } from './safetensors.js';
import { type Source, bytesSource } from './source.js';
import { type StateDict, type TensorRecord, checkBytes, checkedRecord } from './state-dict.js';
import { metadataBytes, readMetadata } from './archive-metadata.js';
import { contiguous } from './strides.js';
import { type ZipFile, openZip, zipBytes } from './zip.js';

/** numpy's codes of types, without the byte order. */
export const codes: Readonly<Record<string, DType>> = { f2: 'F16', f4: 'F32', f8: 'F64', i1: 'I8', i2: 'I16', i4: 'I32', i8: 'I64', u1: 'U8', u2: 'U16', u4: 'U32', u8: 'U64', b1: 'BOOL' };

/** What the header of a `.npy` says. */
export interface NpyHeader {
  dtype: DType;
  bigEndian: boolean;
  fortran: boolean;
  shape: number[];
  /** Where the data begins. */
  start: number;
}

/** The array of bytes that holds the text beside the others, as JSON: `json.loads(bytes(npz['__metadata__']))`. */
const METADATA = '__metadata__';

/**
 * Reads an `.npz`: arrays by name, unpacked when they are asked for. ADM's reference batches, saved statistics and
 * sample files are such. Text that `writeNpz` put beside the arrays is the metadata.
 * @throws CheckpointError where it is no archive, or an array is damaged or of objects
 */
export async function readNpz(source: Source): Promise<StateDict> {
  const tensors = new Map<string, TensorRecord>();
  let metadata: ReadonlyMap<string, string> | undefined;
  for (const entry of (await openZip(source)).values()) {
    if (!entry.name.endsWith('.npy')) continue;
    const name = entry.name.slice(0, -'.npy'.length);
    const where = `${source.name}: array ${JSON.stringify(name)}`;
    const header = parseHeader(where, await entry.readStart(LONGEST_HEADER));
    if (name === METADATA && header.dtype === 'U8') metadata = await readMetadata(entry, header.start);
    if (name !== METADATA || metadata === undefined) tensors.set(name, arrayRecord(where, header, entry.size, () => entry.read(), () => entry.stream()));
  }
  return { tensors, metadata: metadata ?? new Map() };
}

/** Reads a single `.npy` array, under the name `array`. @throws CheckpointError as {@link readNpz} */
export async function readNpy(source: Source): Promise<StateDict> {
  const header = parseHeader(source.name, await source.read(0, Math.min(source.size, LONGEST_HEADER)));
  return { tensors: new Map([['array', arrayRecord(source.name, header, source.size, () => source.read(0, source.size))]]), metadata: new Map() };
}

/** {@link readNpz} of bytes in memory. */
export const parseNpz = (bytes: Uint8Array, name?: string): Promise<StateDict> => readNpz(bytesSource(bytes, name));

/** Headers are a line of text; this is far more than any. */
const LONGEST_HEADER = 65_536 + 12;

/** An array as a tensor, `size` bytes of which `read` gives with the header's `start` before the values. */
export function arrayRecord(where: string, { dtype, bigEndian, fortran, shape, start }: NpyHeader, size: number, read: () => Promise<Uint8Array>, stream?: () => ReadableStream<Uint8Array>): TensorRecord {
  const bytes = bytesPerValue[dtype];
  const length = shape.reduce((a, b) => a * b, bytes);
  if (!Number.isSafeInteger(length) || size - start !== length) throw new CheckpointError(`${where} of shape [${shape.join(', ')}] needs ${length} bytes, ${size - start} follow its header; the file is damaged or cut off`);
  const strides = shape.map((_, axis) => (fortran ? shape.slice(0, axis) : shape.slice(axis + 1)).reduce((a, b) => a * b, 1));
  return {
    dtype,
    shape,
    read: async () => {
      const data = (await read()).subarray(start);
      const values = contiguous(data, { bytes, shape, strides });
      if (!bigEndian || bytes === 1) return values;
      const swapped = values.slice();
      for (let i = 0; i < swapped.length; i += bytes) swapped.subarray(i, i + bytes).reverse();
      return swapped;
    },
    ...(stream === undefined || fortran || (bigEndian && bytes > 1) ? {} : { stream: () => stream().pipeThrough(skipping(start)) }),
  };
}

/** Leaves out the first bytes of a stream. */
function skipping(count: number): TransformStream<Uint8Array, Uint8Array> {
  let left = count;
  return new TransformStream({
    transform(chunk, controller) {
      if (chunk.length > left) controller.enqueue(chunk.subarray(left));
      left -= Math.min(left, chunk.length);
    },
  });
}

/** Puts bytes before a stream. */
function preceded(bytes: Uint8Array): TransformStream<Uint8Array, Uint8Array> {
  return new TransformStream({ start: (controller) => controller.enqueue(bytes) });
}

function parseHeader(where: string, file: Uint8Array): NpyHeader {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 10 || file[0] !== 0x93 || new TextDecoder('latin1').decode(file.subarray(1, 6)) !== 'NUMPY') throw new CheckpointError(`${where} is no numpy array: it does not begin with \\x93NUMPY`);
  const major = file[6]!;
  if (major < 1 || major > 3) throw new CheckpointError(`${where} is of .npy version ${major}, known are 1 to 3`);
  const [from, length] = major === 1 ? [10, view.getUint16(8, true)] : [12, file.length < 12 ? Infinity : view.getUint32(8, true)];
  if (!(from + length <= file.length)) throw new CheckpointError(`${where}: its header has ${length} bytes, ${file.length - from} follow`);
  const text = new TextDecoder(major === 3 ? 'utf-8' : 'latin1').decode(file.subarray(from, from + length));
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(text)?.[1];
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(text)?.[1];
  const sizes = /'shape'\s*:\s*\(([\d\s,L]*)\)/.exec(text)?.[1];
  if (order === undefined || sizes === undefined) throw new CheckpointError(`${where}: its header is ${JSON.stringify(text.trim().slice(0, 100))}, which is not numpy's`);
  const dtype = descr === undefined ? undefined : codes[descr.slice(1)];
  if (descr === undefined || dtype === undefined || !'<>|='.includes(descr[0]!)) {
    const what = descr?.includes('O') === true ? 'Python objects, which would have to be unpickled' : `values of type ${descr ?? 'with fields'}`;
    throw new CheckpointError(`${where} holds ${what}; only numbers and booleans are read`);
  }
  const shape = sizes.split(',').map((n) => n.trim().replace(/L$/, '')).filter((n) => n !== '').map(Number);
  if (!shape.every((n) => Number.isSafeInteger(n))) throw new CheckpointError(`${where} has shape (${sizes})`);
  return { dtype, bigEndian: descr.startsWith('>'), fortran: order === 'True', shape, start: from + length };
}

/**
 * Arrays as an `.npz`, as `numpy.savez` writes it.
 * @param options `compress`: as `numpy.savez_compressed`. Default `false`. `metadata`: text to keep beside the arrays, as an array of bytes, `__metadata__`. Default: none
 * @throws CheckpointError for types that numpy does not have, or where an array's bytes do not fit its type and shape
 */
export function writeNpz(arrays: Iterable<readonly [name: string, array: WritableTensor]>, { compress = false, metadata }: { compress?: boolean; metadata?: Iterable<readonly [string, string]> } = {}): Promise<Uint8Array<ArrayBuffer>> {
  return zipBytes(npzFiles(Array.from(arrays, ([name, { bytes, ...rest }]) => [name, checkedRecord(name, { ...rest, read: async () => bytes })] as const), metadata), { compress });
}

/** An array as a `.npy`, as `numpy.save` writes it. @throws CheckpointError as {@link writeNpz} */
export function writeNpy({ bytes, ...array }: WritableTensor): Uint8Array {
  checkBytes('array', array, bytes.length);
  return concatenated(npyHeader('the array', array), bytes);
}

/** The files inside of an `.npz`. @throws CheckpointError as {@link writeNpz} */
export function npzFiles(arrays: readonly (readonly [name: string, record: TensorRecord])[], metadata: Iterable<readonly [string, string]> = []): ZipFile[] {
  const entries = [...metadata];
  const text = metadataBytes(entries);
  const beside: [string, TensorRecord][] = entries.length === 0 ? [] : [[METADATA, { dtype: 'U8', shape: [text.length], read: async () => text }]];
  return [...beside, ...arrays].map(([name, record]) => {
    const header = npyHeader(name, record);
    const stream = record.stream?.bind(record);
    return { name: `${name}.npy`, read: async () => concatenated(header, await record.read()), stream: stream && (() => stream().pipeThrough(preceded(header))) };
  });
}

function npyHeader(name: string, { dtype, shape }: Pick<TensorRecord, 'dtype' | 'shape'>): Uint8Array {
  const code = Object.entries(codes).find(([, type]) => type === dtype)?.[0];
  if (code === undefined) throw new CheckpointError(`${name} is of type ${dtype}, which numpy does not have; convert it first`);
  const order = bytesPerValue[dtype] === 1 ? '|' : '<';
  const dictionary = `{'descr': '${order}${code}', 'fortran_order': False, 'shape': (${shape.join(', ')}${shape.length === 1 ? ',' : ''}), }`;
  // data begins at a multiple of 64
  const padding = (64 - ((10 + dictionary.length + 1) % 64)) % 64;
  const header = new TextEncoder().encode(`${dictionary}${' '.repeat(padding)}\n`);
  return concatenated(Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8), header);
}

function concatenated(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

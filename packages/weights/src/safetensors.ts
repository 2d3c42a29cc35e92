import { CheckpointError } from '@tinyfusion/core';
import { type DType, bytesPerValue, encodeFloat32, isDType } from './dtype.js';
import { type Source, bytesSource } from './source.js';
import { type StateDict, type TensorRecord, byteLength, checkBytes } from './state-dict.js';
import { parseJson } from './strict-json.js';

/** The format's own limit on its header. */
const LARGEST_HEADER = 100_000_000;

/**
 * Reads the header of a safetensors file; tensors are read when they are asked for.
 * @throws CheckpointError where the file breaks the format's rules: a header that is no JSON object or does not fit,
 * repeated names, unknown types, shapes that do not match their bytes, tensors that overlap or leave holes
 */
export async function readSafetensors(source: Source): Promise<StateDict> {
  const { name, size } = source;
  if (size < 8) throw new CheckpointError(`${name} is no safetensors file: it has ${size} bytes, and the length of its header alone takes 8`);
  const prefix = await source.read(0, 8);
  const headerSize = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (headerSize > BigInt(size - 8)) throw new CheckpointError(`${name} is no safetensors file, or is cut off: its header should have ${headerSize} bytes, and ${size - 8} follow`);
  if (headerSize > BigInt(LARGEST_HEADER)) throw new CheckpointError(`${name}: the header has ${headerSize} bytes, the format allows ${LARGEST_HEADER}`);
  const start = 8 + Number(headerSize);
  const header = parseHeader(name, await source.read(8, Number(headerSize)));
  return { metadata: readMetadata(name, header), tensors: readIndex(source, header, start) };
}

/** {@link readSafetensors} of bytes in memory. */
export function parseSafetensors(bytes: Uint8Array, name?: string): Promise<StateDict> {
  return readSafetensors(bytesSource(bytes, name));
}

function parseHeader(name: string, bytes: Uint8Array): Map<string, unknown> {
  let header: unknown;
  try {
    header = parseJson(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw new CheckpointError(`${name}: the safetensors header is broken: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  if (!(header instanceof Map) || bytes[0] !== 0x7b) throw new CheckpointError(`${name}: the safetensors header is not a JSON object`);
  return header as Map<string, unknown>;
}

function readMetadata(name: string, header: Map<string, unknown>): Map<string, string> {
  const metadata = header.get('__metadata__');
  if (metadata === undefined) return new Map();
  if (!(metadata instanceof Map)) throw new CheckpointError(`${name}: __metadata__ is not an object of strings`);
  for (const [key, value] of metadata) if (typeof value !== 'string') throw new CheckpointError(`${name}: __metadata__ entry ${JSON.stringify(key)} is not a string`);
  return metadata as Map<string, string>;
}

function readIndex(source: Source, header: Map<string, unknown>, start: number): Map<string, TensorRecord> {
  const length = source.size - start;
  const entries: { key: string; dtype: DType; shape: number[]; from: number; to: number }[] = [];
  for (const [key, value] of header) {
    if (key === '__metadata__') continue;
    const where = `${source.name}: tensor ${JSON.stringify(key)}`;
    if (!(value instanceof Map)) throw new CheckpointError(`${where} is described by no object`);
    const [dtype, shape, offsets] = [value.get('dtype'), value.get('shape'), value.get('data_offsets')] as [unknown, unknown, unknown];
    if (!isDType(dtype)) throw new CheckpointError(`${where} has type ${JSON.stringify(dtype)}, expected one of ${Object.keys(bytesPerValue).join(', ')}`);
    if (!isSizes(shape)) throw new CheckpointError(`${where} has shape ${JSON.stringify(shape)}, expected a list of sizes`);
    if (!isSizes(offsets) || offsets.length !== 2) throw new CheckpointError(`${where} has data_offsets ${JSON.stringify(offsets)}, expected two positions`);
    const [from, to] = offsets as [number, number];
    const bytes = shape.reduce((a, b) => a * b, bytesPerValue[dtype]);
    if (!Number.isSafeInteger(bytes)) throw new CheckpointError(`${where} has shape [${shape.join(', ')}], which is too large for any file`);
    if (from > to || to > length) throw new CheckpointError(`${where} lies at ${from} to ${to} of ${length} bytes of data; the file may be cut off`);
    if (to - from !== bytes) throw new CheckpointError(`${where} of type ${dtype} and shape [${shape.join(', ')}] needs ${bytes} bytes, its data_offsets span ${to - from}`);
    entries.push({ key, dtype, shape, from, to });
  }
  let at = 0;
  for (const { key, from, to } of entries.toSorted((a, b) => a.from - b.from || a.to - b.to)) {
    if (from !== at) throw new CheckpointError(`${source.name}: tensor ${JSON.stringify(key)} starts at ${from}, expected ${at}: data must neither overlap nor leave holes`);
    at = to;
  }
  if (at !== length) throw new CheckpointError(`${source.name}: ${length - at} bytes after the last tensor belong to none`);
  return new Map(
    entries.map(({ key, dtype, shape, from, to }) => {
      const record: TensorRecord = { dtype, shape, read: () => source.read(start + from, to - from) };
      return [key, source.readInto === undefined ? record : { ...record, readInto: (into, offset) => source.readInto!(into, start + from + offset) }];
    }),
  );
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((v) => typeof v === 'number' && Number.isSafeInteger(v) && v >= 0);
}

/** A tensor to write. */
export interface WritableTensor {
  dtype: DType;
  shape: readonly number[];
  /** Little-endian, in C order. */
  bytes: Uint8Array;
}

/** A tensor to write from float32 values. Named and thrown as by {@link encodeFloat32}. */
export function writableTensor(values: Float32Array, shape: readonly number[], dtype: 'F32' | 'F16' = 'F32', name?: string): WritableTensor {
  return { dtype, shape, bytes: encodeFloat32(values, dtype, name) };
}

/**
 * The beginning of a safetensors file: everything but the tensors' bytes, which follow in the order of the list. Of metadata
 * whose key comes twice the last text counts, in archives too.
 * @throws CheckpointError where a name comes twice
 */
export function safetensorsHeader(tensors: Iterable<readonly [name: string, tensor: Pick<WritableTensor, 'dtype' | 'shape'>]>, metadata: Iterable<readonly [string, string]> = []): Uint8Array<ArrayBuffer> {
  const parts: string[] = [];
  const text = [...new Map(metadata)];
  if (text.length > 0) parts.push(`"__metadata__":{${text.map(([k, v]) => `${JSON.stringify(k)}:${JSON.stringify(v)}`).join(',')}}`);
  const seen = new Set<string>();
  let at = 0;
  for (const [name, { dtype, shape }] of tensors) {
    if (seen.has(name) || name === '__metadata__') throw new CheckpointError(`two tensors are called ${JSON.stringify(name)}`);
    seen.add(name);
    const bytes = byteLength({ dtype, shape });
    parts.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${at},${at + bytes}]}`);
    at += bytes;
  }
  const header = new TextEncoder().encode(`{${parts.join(',')}}`);
  // data begins at a multiple of 8
  const out = new Uint8Array(8 + Math.ceil(header.length / 8) * 8).fill(0x20);
  new DataView(out.buffer).setBigUint64(0, BigInt(out.length - 8), true);
  out.set(header, 8);
  return out;
}

/**
 * A safetensors file in memory; tensors lie in the order given, the header is padded to a multiple of 8.
 * @throws CheckpointError where a tensor's bytes do not fit its type and shape
 */
export function writeSafetensors(tensors: Iterable<readonly [name: string, tensor: WritableTensor]>, metadata: Iterable<readonly [string, string]> = []): Uint8Array<ArrayBuffer> {
  const list = [...tensors];
  const header = safetensorsHeader(list, metadata);
  for (const [name, tensor] of list) checkBytes(name, tensor, tensor.bytes.byteLength);
  const out = new Uint8Array(list.reduce((sum, [, { bytes }]) => sum + bytes.byteLength, header.length));
  out.set(header);
  let to = header.length;
  for (const [, { bytes }] of list) {
    out.set(bytes, to);
    to += bytes.byteLength;
  }
  return out;
}

/** A state dict as one safetensors file in memory, so below 4 GB; `writeCheckpoint` of `@tinyfusion/weights/node` writes any, tensor by tensor. */
export async function safetensorsOf({ tensors, metadata }: StateDict): Promise<Uint8Array<ArrayBuffer>> {
  const written: [string, WritableTensor][] = [];
  for (const [name, { dtype, shape, read }] of tensors) written.push([name, { dtype, shape, bytes: await read() }]);
  return writeSafetensors(written, metadata);
}

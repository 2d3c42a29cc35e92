import { CheckpointError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { type DType, bytesPerValue, decodeFloat32 } from './dtype.js';

/** One tensor of a checkpoint, whose bytes are read when they are asked for. */
export interface TensorRecord {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Little-endian values in C order. */
  read(): Promise<Uint8Array>;
  /** The same in parts, where the tensor's place allows: for what is too large to hold. */
  stream?(): ReadableStream<Uint8Array>;
  /** Fills `into` with its bytes from `offset`, where the tensor's place allows. */
  readInto?(into: Uint8Array, offset: number): Promise<void>;
}

/**
 * A tensor's bytes in parts of any size; all at once where its place allows no other.
 *
 * @param room where the tensor's place allows, parts lie in it and are valid until the next is asked for. First touches of
 *   new memory take longer than the way of a file's bytes through memory that is there
 * @yields the parts in order
 */
export async function* tensorParts(record: TensorRecord, room?: Uint8Array): AsyncGenerator<Uint8Array, void, void> {
  if (room !== undefined && record.readInto !== undefined) {
    const bytes = record.shape.reduce((a, b) => a * b, bytesPerValue[record.dtype]);
    for (let at = 0; at < bytes; at += room.length) {
      const part = room.subarray(0, Math.min(room.length, bytes - at));
      await record.readInto(part, at);
      yield part;
    }
  } else if (record.stream === undefined) yield record.read();
  else {
    const reader = record.stream().getReader();
    try {
      for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
    } finally {
      // left early, it reads no further
      await reader.cancel().catch(() => {});
    }
  }
}

/** Bytes of a tensor's values. */
export function byteLength({ dtype, shape }: Pick<TensorRecord, 'dtype' | 'shape'>): number {
  return shape.reduce((a, b) => a * b, bytesPerValue[dtype]);
}

/** @throws CheckpointError where `count` bytes are not what the tensor has */
export function checkBytes(name: string, tensor: Pick<TensorRecord, 'dtype' | 'shape'>, count: number): void {
  const expected = byteLength(tensor);
  if (count !== expected) throw new CheckpointError(`tensor ${JSON.stringify(name)} of type ${tensor.dtype} and shape [${tensor.shape.join(', ')}] needs ${expected} bytes, got ${count}`);
}

/** What {@link checkedRecord} calls. */
interface Watcher {
  /** Before the first byte is asked for. */
  begun?(): void;
  /** When all have come. */
  done?(): void;
}

/** A tensor to copy into a file: where it gives fewer bytes than it has, or more, reading it fails with a CheckpointError. */
export function checkedRecord(name: string, record: TensorRecord, { begun, done }: Watcher = {}): TensorRecord {
  const { dtype, shape } = record;
  const finish = (count: number): void => {
    checkBytes(name, record, count);
    done?.();
  };
  const read = async (): Promise<Uint8Array> => {
    begun?.();
    const bytes = await record.read();
    finish(bytes.length);
    return bytes;
  };
  if (record.stream === undefined) return { dtype, shape, read };
  const stream = (): ReadableStream<Uint8Array> => {
    begun?.();
    let count = 0;
    const counting = new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller) => {
        count += chunk.length;
        controller.enqueue(chunk);
      },
      flush: () => finish(count),
    });
    return record.stream!().pipeThrough(counting);
  };
  return { dtype, shape, read, stream };
}

/** A checkpoint as data: names to tensors, and text beside them. Names like `__proto__` are only names. */
export interface StateDict {
  readonly tensors: ReadonlyMap<string, TensorRecord>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** A tensor's values as float32. */
export async function toFloat32(record: TensorRecord): Promise<Float32Array<ArrayBuffer>> {
  return decodeFloat32(await record.read(), record.dtype);
}

/** A tensor's values as float64: those of float64 and of integers below 2⁵³ exactly. */
export async function toFloat64(record: TensorRecord): Promise<Float64Array<ArrayBuffer>> {
  const bytes = await record.read();
  if (record.dtype === 'F64') return new Float64Array(bytes.slice().buffer);
  if (record.dtype === 'I64' || record.dtype === 'U64') {
    const words = record.dtype === 'I64' ? new BigInt64Array(bytes.slice().buffer) : new BigUint64Array(bytes.slice().buffer);
    return Float64Array.from(words, Number);
  }
  if (record.dtype === 'I32') return Float64Array.from(new Int32Array(bytes.slice().buffer));
  if (record.dtype === 'U32') return Float64Array.from(new Uint32Array(bytes.slice().buffer));
  return Float64Array.from(decodeFloat32(bytes, record.dtype));
}

/** A state dict of values in memory. */
export function stateDictOf(values: Iterable<readonly [name: string, { shape: readonly number[]; values: Float32Array }]>, metadata: Iterable<readonly [string, string]> = []): StateDict {
  const tensors = new Map<string, TensorRecord>();
  for (const [name, { shape, values: own }] of values) {
    tensors.set(name, { dtype: 'F32', shape, read: async () => new Uint8Array(own.buffer, own.byteOffset, own.byteLength) });
  }
  return { tensors, metadata: new Map(metadata) };
}

/**
 * SHA-256 over names, types, shapes and bytes in the order of the names, in hexadecimal: the identity of a teacher,
 * whatever order or file its tensors lie in.
 * @throws CancelledError between two tensors
 */
export async function stateDictHash(state: StateDict, { signal, onProgress }: LongTaskOptions = {}): Promise<string> {
  const room = nodeSha256() && new Uint8Array(2 ** 22); // a browser's hash takes a tensor at once
  const digests: string[] = [];
  const report = (): void => onProgress?.({ task: 'hash weights', step: digests.length, total: state.tensors.size, unit: 'tensor' });
  if (state.tensors.size === 0) report();
  for (const [name, record] of [...state.tensors].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    throwIfCancelled(signal, 'hash weights');
    digests.push(`${JSON.stringify([name, record.dtype, record.shape])} ${await sha256(tensorParts(record, room))}`);
    report();
  }
  return sha256([new TextEncoder().encode(digests.join('\n'))]);
}

/** What takes bytes and gives their hash. */
export interface Hash {
  update(bytes: Uint8Array): unknown;
  digest(encoding: 'hex'): string;
}

/** Node's own, which takes bytes part by part; undefined elsewhere. */
export function nodeSha256(): Hash | undefined {
  const { process } = globalThis as { process?: { getBuiltinModule?(name: 'node:crypto'): { createHash(algorithm: 'sha256'): Hash } } };
  return process?.getBuiltinModule?.('node:crypto').createHash('sha256');
}

async function sha256(parts: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<string> {
  const hash = nodeSha256();
  const all: Uint8Array[] = [];
  for await (const part of parts) {
    if (hash === undefined) all.push(part);
    else hash.update(part);
  }
  if (hash !== undefined) return hash.digest('hex');
  const whole = all.length === 1 ? (all[0] as Uint8Array<ArrayBuffer>) : await new Blob(all as Uint8Array<ArrayBuffer>[]).arrayBuffer();
  const digest = await crypto.subtle.digest('SHA-256', whole);
  return Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, '0')).join('');
}

import { type DType, decodeFloat32 } from './dtype.js';

/** One tensor of a checkpoint, whose bytes are read when they are asked for. */
export interface TensorRecord {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Little-endian values in C order. */
  read(): Promise<Uint8Array>;
  /** The same in parts, where the tensor's place allows: for what is too large to hold. */
  stream?(): ReadableStream<Uint8Array>;
}

/**
 * A tensor's bytes in parts of any size; all at once where its place allows no other.
 * @yields the parts in order
 */
export async function* tensorParts(record: TensorRecord): AsyncGenerator<Uint8Array, void, void> {
  if (record.stream === undefined) yield record.read();
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
 */
export async function stateDictHash(state: StateDict): Promise<string> {
  const digests: string[] = [];
  const named = [...state.tensors].toSorted(([a], [b]) => (a < b ? -1 : 1));
  let reading = named[0]?.[1].read();
  for (const [i, [name, { dtype, shape }]] of named.entries()) {
    const bytes = await reading!;
    reading = named[i + 1]?.[1].read(); // while this one is hashed
    reading?.catch(() => {}); // it is awaited next
    digests.push(`${JSON.stringify([name, dtype, shape])} ${await sha256(bytes)}`);
  }
  return sha256(new TextEncoder().encode(digests.join('\n')));
}

async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>);
  return Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, '0')).join('');
}

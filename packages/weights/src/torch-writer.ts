import { CheckpointError, concatenate } from '@tinyfusion/core';
import { metadataBytes } from './archive-metadata.js';
import { codes } from './numpy.js';
import type { WritableTensor } from './safetensors.js';
import { type TensorRecord, checkBytes, checkedRecord } from './state-dict.js';
import { TORCH_METADATA, storageTypes } from './torch.js';
import { type ZipFile, zipBytes } from './zip.js';

/**
 * A state dict as a PyTorch checkpoint in the zip format, which `torch.load(…, weights_only=True)` reads as an
 * `OrderedDict` of tensors.
 * @param metadata text to keep beside the tensors, in a file of the archive's own that PyTorch does not look at. Default: none
 * @throws CheckpointError for types that PyTorch's storages do not have, or where a tensor's bytes do not fit its type and shape
 */
export async function writeTorch(tensors: Iterable<readonly [name: string, tensor: WritableTensor]>, metadata?: Iterable<readonly [string, string]>): Promise<Uint8Array<ArrayBuffer>> {
  return zipBytes(torchFiles(Array.from(tensors, ([name, { bytes, ...rest }]) => [name, checkedRecord(name, { ...rest, read: async () => bytes })] as const), metadata));
}

/** The files inside of a PyTorch checkpoint. @throws CheckpointError as {@link writeTorch} */
export function torchFiles(tensors: readonly (readonly [name: string, record: TensorRecord])[], metadata: Iterable<readonly [string, string]> = []): ZipFile[] {
  const entries = [...metadata];
  const beside: ZipFile[] = entries.length === 0 ? [] : [{ name: `archive/${TORCH_METADATA}`, read: async () => metadataBytes(entries) }];
  return archiveFiles(pickleState(tensors), [...beside, ...tensors.map(([, record], i) => ({ name: `archive/data/${i}`, read: () => record.read(), stream: record.stream?.bind(record) }))]);
}

/**
 * A dictionary of numpy arrays as a PyTorch checkpoint, as torch-fidelity keeps statistics. `torch.load` gives numpy's
 * arrays, but not with `weights_only=True`.
 * @throws CheckpointError for types that numpy does not have, or where an array's bytes do not fit its type and shape
 */
export function writeTorchArrays(arrays: Iterable<readonly [name: string, array: WritableTensor]>): Promise<Uint8Array<ArrayBuffer>> {
  const pickle = new PickleWriter(4);
  pickle.put(0x7d, 0x28); // a dictionary, and its items
  for (const [name, { dtype, shape, bytes }] of arrays) {
    checkBytes(name, { dtype, shape }, bytes.length);
    const code = Object.entries(codes).find(([, type]) => type === dtype)?.[0];
    if (code === undefined) throw new CheckpointError(`${name} is of type ${dtype}, which numpy does not have; convert it first`);
    pickle.string(name);
    pickle.global('numpy.core.multiarray', '_reconstruct');
    pickle.global('numpy', 'ndarray');
    pickle.integers([0]);
    pickle.bytes(Uint8Array.of(0x62));
    pickle.put(0x87, 0x52, 0x28); // an empty array, whose state is:
    pickle.integer(1);
    pickle.integers(shape);
    pickle.global('numpy', 'dtype');
    pickle.string(code);
    pickle.put(0x89, 0x88, 0x87, 0x52, 0x28);
    pickle.integer(3);
    pickle.string(code.endsWith('1') ? '|' : '<');
    pickle.put(0x4e, 0x4e, 0x4e);
    for (const value of [-1, -1, 0]) pickle.integer(value);
    pickle.put(0x74, 0x62, 0x89);
    pickle.bytes(bytes);
    pickle.put(0x74, 0x62);
  }
  pickle.put(0x75, 0x2e);
  return zipBytes(archiveFiles(pickle.finish()));
}

/** The files of an archive around a pickle. */
function archiveFiles(pickle: Uint8Array, storages: readonly ZipFile[] = []): ZipFile[] {
  const text = (name: string, content: string): ZipFile => ({ name: `archive/${name}`, read: async () => new TextEncoder().encode(content) });
  return [{ name: 'archive/data.pkl', read: async () => pickle }, text('byteorder', 'little'), ...storages, text('version', '3\n')];
}

/** The pickle of an OrderedDict of tensors, one storage each. */
function pickleState(tensors: readonly (readonly [string, TensorRecord])[]): Uint8Array {
  const pickle = new PickleWriter(2);
  pickle.global('collections', 'OrderedDict');
  pickle.put(0x29, 0x52, 0x28);
  for (const [i, [name, { dtype, shape }]] of tensors.entries()) {
    const storage = Object.entries(storageTypes).find(([, type]) => type === dtype)?.[0];
    if (storage === undefined) throw new CheckpointError(`${name} is of type ${dtype}, which PyTorch's storages do not have; convert it first`);
    const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    pickle.string(name);
    pickle.global('torch._utils', '_rebuild_tensor_v2');
    pickle.put(0x28, 0x28);
    pickle.string('storage');
    pickle.global('torch', storage.slice('torch.'.length));
    pickle.string(String(i));
    pickle.string('cpu');
    pickle.integer(shape.reduce((a, b) => a * b, 1));
    pickle.put(0x74, 0x51);
    pickle.integer(0);
    pickle.integers(shape);
    pickle.integers(strides);
    pickle.put(0x89);
    pickle.global('collections', 'OrderedDict');
    pickle.put(0x29, 0x52, 0x74, 0x52);
  }
  pickle.put(0x75, 0x2e);
  return pickle.finish();
}

/** Writes the instructions of a pickle. */
class PickleWriter {
  readonly #parts: Uint8Array[] = [];

  constructor(protocol: number) {
    this.put(0x80, protocol);
  }

  put(...bytes: number[]): void {
    this.#parts.push(Uint8Array.from(bytes));
  }

  global(module: string, name: string): void {
    this.#parts.push(new TextEncoder().encode(`c${module}\n${name}\n`));
  }

  string(value: string): void {
    const bytes = new TextEncoder().encode(value);
    this.put(0x58, ...word(bytes.length));
    this.#parts.push(bytes);
  }

  bytes(value: Uint8Array): void {
    this.put(0x42, ...word(value.length));
    this.#parts.push(value);
  }

  integer(value: number): void {
    if (value < 2 ** 31) return this.put(0x4a, ...word(value));
    const bytes = [];
    for (let rest = BigInt(value); rest > 0n; rest >>= 8n) bytes.push(Number(rest & 255n));
    if (bytes.at(-1)! & 0x80) bytes.push(0);
    return this.put(0x8a, bytes.length, ...bytes);
  }

  /** A tuple. */
  integers(values: readonly number[]): void {
    this.put(0x28);
    for (const value of values) this.integer(value);
    this.put(0x74);
  }

  finish(): Uint8Array {
    return concatenate(this.#parts);
  }
}

const word = (value: number): number[] => [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];

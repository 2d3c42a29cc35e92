import { CheckpointError } from '@tinyfusion/core';
import type { WritableTensor } from './safetensors.js';
import type { TensorRecord } from './state-dict.js';
import { storageTypes } from './torch.js';
import { type ZipFile, zipBytes } from './zip.js';

/**
 * A state dict as a PyTorch checkpoint in the zip format, which `torch.load(…, weights_only=True)` reads as an
 * `OrderedDict` of tensors.
 * @throws CheckpointError for types that PyTorch's storages do not have
 */
export async function writeTorch(tensors: Iterable<readonly [name: string, tensor: WritableTensor]>): Promise<Uint8Array<ArrayBuffer>> {
  return zipBytes(torchFiles(Array.from(tensors, ([name, { bytes, ...rest }]) => [name, { ...rest, read: async () => bytes }] as const)));
}

/** The files inside of a PyTorch checkpoint. @throws CheckpointError as {@link writeTorch} */
export function torchFiles(tensors: readonly (readonly [name: string, record: TensorRecord])[]): ZipFile[] {
  const text = (name: string, content: string): ZipFile => ({ name: `archive/${name}`, read: async () => new TextEncoder().encode(content) });
  const pickle = pickleState(tensors);
  return [{ name: 'archive/data.pkl', read: async () => pickle }, text('byteorder', 'little'), ...tensors.map(([, record], i): ZipFile => ({ name: `archive/data/${i}`, read: () => record.read(), stream: record.stream?.bind(record) })), text('version', '3\n')];
}

/** The pickle (protocol 2) of an OrderedDict of tensors, one storage each. */
function pickleState(tensors: readonly (readonly [string, TensorRecord])[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const put = (...bytes: number[]): void => void parts.push(Uint8Array.from(bytes));
  const word = (value: number): number[] => [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
  const global = (module: string, name: string): void => void parts.push(new TextEncoder().encode(`c${module}\n${name}\n`));
  const string = (value: string): void => {
    const bytes = new TextEncoder().encode(value);
    put(0x58, ...word(bytes.length));
    parts.push(bytes);
  };
  const integer = (value: number): void => {
    if (value < 2 ** 31) return put(0x4a, ...word(value));
    const bytes = [];
    for (let rest = BigInt(value); rest > 0n; rest >>= 8n) bytes.push(Number(rest & 255n));
    if (bytes.at(-1)! & 0x80) bytes.push(0);
    put(0x8a, bytes.length, ...bytes);
  };
  const tuple = (values: readonly number[]): void => {
    put(0x28);
    for (const v of values) integer(v);
    put(0x74);
  };
  put(0x80, 2);
  global('collections', 'OrderedDict');
  put(0x29, 0x52, 0x28);
  for (const [i, [name, { dtype, shape }]] of tensors.entries()) {
    const storage = Object.entries(storageTypes).find(([, type]) => type === dtype)?.[0];
    if (storage === undefined) throw new CheckpointError(`${name} is of type ${dtype}, which PyTorch's storages do not have; convert it first`);
    const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
    string(name);
    global('torch._utils', '_rebuild_tensor_v2');
    put(0x28, 0x28);
    string('storage');
    global('torch', storage.slice('torch.'.length));
    string(String(i));
    string('cpu');
    integer(shape.reduce((a, b) => a * b, 1));
    put(0x74, 0x51);
    integer(0);
    tuple(shape);
    tuple(strides);
    put(0x89);
    global('collections', 'OrderedDict');
    put(0x29, 0x52, 0x74, 0x52);
  }
  put(0x75, 0x2e);
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

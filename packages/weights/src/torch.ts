import { CheckpointError } from '@tinyfusion/core';
import { type DType, bytesPerValue } from './dtype.js';
import { readMetadata } from './archive-metadata.js';
import { PickleEnd, PickledGlobal, PickledObject, type UnpickleOptions, shown, unpickle } from './pickle.js';
import { arrayNames, pickledArray } from './pickled-array.js';
import { type Source, bytesSource } from './source.js';
import { type StateDict, type TensorRecord, byteLength } from './state-dict.js';
import { isZip, openZip } from './zip.js';
import { contiguous } from './strides.js';

/** A PyTorch checkpoint: its tensors by dotted path, and everything else in it as plain data. */
export interface TorchCheckpoint extends StateDict {
  /** What the file holds beside tensors, nested as it is: objects, lists, text, numbers; tensors are left out. */
  readonly extra: unknown;
}

/** The file of an archive that holds the text beside the tensors; ours, not PyTorch's. */
export const TORCH_METADATA = 'metadata.json';

/** Types of storages, by PyTorch's names. */
export const storageTypes: Readonly<Record<string, DType>> = {
  'torch.FloatStorage': 'F32',
  'torch.DoubleStorage': 'F64',
  'torch.HalfStorage': 'F16',
  'torch.BFloat16Storage': 'BF16',
  'torch.LongStorage': 'I64',
  'torch.IntStorage': 'I32',
  'torch.ShortStorage': 'I16',
  'torch.CharStorage': 'I8',
  'torch.ByteStorage': 'U8',
  'torch.BoolStorage': 'BOOL',
};

/** Types of values, by PyTorch's names, as newer files name them. */
const valueTypes: Readonly<Record<string, DType>> = {
  'torch.float32': 'F32',
  'torch.float64': 'F64',
  'torch.float16': 'F16',
  'torch.bfloat16': 'BF16',
  'torch.int64': 'I64',
  'torch.int32': 'I32',
  'torch.int16': 'I16',
  'torch.int8': 'I8',
  'torch.uint8': 'U8',
  'torch.uint16': 'U16',
  'torch.uint32': 'U32',
  'torch.uint64': 'U64',
  'torch.bool': 'BOOL',
  'torch.float8_e4m3fn': 'F8_E4M3',
  'torch.float8_e5m2': 'F8_E5M2',
};

/** Everything that checkpoints call or name; nothing of it is run. */
const allowed: ReadonlySet<string> = new Set([
  ...Object.keys(storageTypes),
  ...Object.keys(valueTypes),
  'torch.storage.UntypedStorage',
  'torch._utils._rebuild_tensor',
  'torch._utils._rebuild_tensor_v2',
  'torch._utils._rebuild_tensor_v3',
  'torch._utils._rebuild_parameter',
  'torch._utils._rebuild_parameter_with_state',
  'torch.Size',
  'torch.device',
  'collections.OrderedDict',
  'collections.defaultdict',
  'argparse.Namespace',
  ...arrayNames,
  'builtins.set',
  'builtins.dict',
  '__builtin__.set',
  '__builtin__.dict',
]);

/** Bytes that tensors are views of. */
interface Storage {
  key: string;
  /** Missing for untyped storages, whose tensors say it. */
  dtype: DType | undefined;
  /** Values, or bytes where it is untyped. */
  count: number;
}

/** Where storages lie; `check` throws where one is missing or too short. */
interface Storages {
  check(storage: Storage): void;
  /** Little-endian values of `width` bytes. */
  read(storage: Storage, width: number): Promise<Uint8Array>;
}

/**
 * Reads a PyTorch checkpoint, `.pt`, `.pth` or `.ckpt`: the zip format of today and the one before 1.6, nested
 * dictionaries, parameters, views with any strides, storages shared by several tensors. Nothing of the pickle is run:
 * names outside of what checkpoints need are refused. A storage is read when one of its tensors is.
 *
 * @throws CheckpointError where the file is no checkpoint, asks for something to be called, or is damaged
 */
export async function readTorch(source: Source): Promise<TorchCheckpoint> {
  if (source.size === 0) throw new CheckpointError(`${source.name} is empty, expected a PyTorch checkpoint`);
  const start = await source.read(0, Math.min(4, source.size));
  return isZip(start) ? readZipFormat(source) : readLegacyFormat(source);
}

/** {@link readTorch} of bytes in memory. */
export function parseTorch(bytes: Uint8Array, name?: string): Promise<TorchCheckpoint> {
  return readTorch(bytesSource(bytes, name));
}

/** The most a pickle may take; checkpoints of thousands of tensors have a megabyte. */
const LARGEST_PICKLE = 512 * 2 ** 20;

/** The most a pickle may take in a file of `size` bytes: PyTorch does not compress it, and who packs a file again gains little. */
const largestPickle = (size: number): number => Math.min(LARGEST_PICKLE, Math.max(16 * 2 ** 20, 16 * size));

async function readZipFormat(source: Source): Promise<TorchCheckpoint> {
  const entries = await openZip(source);
  const pickle = [...entries.values()].find(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickle === undefined) {
    throw new CheckpointError(`${source.name} is a zip archive but no PyTorch checkpoint: it has no data.pkl. It has: ${[...entries.keys()].slice(0, 6).join(', ') || 'nothing'}`);
  }
  if (pickle.size > largestPickle(source.size)) throw new CheckpointError(`${source.name}: its data.pkl would unpack to ${pickle.size} bytes, which no checkpoint needs`);
  const root = pickle.name.slice(0, -'data.pkl'.length);
  const order = entries.get(`${root}byteorder`);
  const bigEndian = order !== undefined && new TextDecoder().decode(await order.read()) === 'big';
  let last: { key: string; width: number; bytes: Promise<Uint8Array> } | undefined;
  const storages: Storages = {
    check({ key, dtype, count }) {
      const entry = entries.get(`${root}data/${key}`);
      const bytes = count * (dtype === undefined ? 1 : bytesPerValue[dtype]);
      if (entry === undefined) throw new CheckpointError(`${source.name}: the storage ${key} is missing; the file is damaged or was put together by hand`);
      if (entry.size < bytes) throw new CheckpointError(`${source.name}: the storage ${key} has ${entry.size} bytes, expected ${bytes}; the file is damaged`);
    },
    // tensors of one storage are often asked for one after the other
    read({ key }, width) {
      if (last?.key === key && last.width === width) return last.bytes;
      const bytes = entries.get(`${root}data/${key}`)!.read();
      const own = { key, width, bytes: bigEndian && width > 1 ? bytes.then((b) => swapBytes(b, width)) : bytes };
      last = own;
      own.bytes.catch(() => {
        // the next try reads it anew
        if (last === own) last = undefined;
      });
      return own.bytes;
    },
  };
  const bytes = await pickle.read();
  const { value } = unpickle(bytes, 0, options(source.name));
  return { ...toCheckpoint(source.name, value, storages, bytes.length), metadata: (await readMetadata(entries.get(`${root}${TORCH_METADATA}`))) ?? new Map() };
}

/** The number that the old format begins with. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;

async function readLegacyFormat(source: Source): Promise<TorchCheckpoint> {
  const { name, size } = source;
  // pickles come first and are small, storages follow; read on until the pickles end
  const first = await source.read(0, Math.min(size, 64));
  if (first[0] !== 0x80) throw new CheckpointError(`${name} is no PyTorch checkpoint: it begins with ${JSON.stringify(new TextDecoder('latin1').decode(first.subarray(0, 12)))}`);
  for (let length = Math.min(size, 2 ** 20); ; length = Math.min(size, 8 * length)) {
    try {
      return await readLegacyPart(source, await source.read(0, length));
    } catch (error) {
      // the pickles go on beyond what was read: read more, as long as there is more
      if (!(error instanceof PickleEnd) || length >= Math.min(size, LARGEST_PICKLE)) throw error;
    }
  }
}

/** A checkpoint of the old format, given as much of its beginning as holds the pickles. */
async function readLegacyPart(source: Source, head: Uint8Array): Promise<TorchCheckpoint> {
  const { name, size } = source;
  const refuse = (what: string) => new CheckpointError(`${name} is no PyTorch checkpoint: ${what}`);
  const seen = options(name);
  const magic = unpickle(head, 0, seen);
  if (magic.value !== LEGACY_MAGIC) throw refuse('it is a pickle of something else');
  const version = unpickle(head, magic.end, seen);
  const system = unpickle(head, version.end, seen);
  if (system.value instanceof Map && system.value.get('little_endian') === false) throw new CheckpointError(`${name} was written on a big-endian machine; save it again on another`);
  const main = unpickle(head, system.end, seen);
  const keys = unpickle(head, main.end, seen);
  if (!Array.isArray(keys.value)) throw new CheckpointError(`${name}: the list of storages is damaged`);
  const places = new Map<string, { at: number; count: number }>();
  const types = new Map<string, DType | undefined>(seen.storages.map(({ key, dtype }) => [key, dtype]));
  let at = keys.end;
  for (const key of keys.value.map(shown)) {
    if (at + 8 > size) throw new CheckpointError(`${name} is cut off: the storage ${key} is missing`);
    const length = await source.read(at, 8);
    const count = Number(new DataView(length.buffer, length.byteOffset, 8).getBigInt64(0, true));
    const dtype = types.get(key);
    const bytes = count * (dtype === undefined ? 1 : bytesPerValue[dtype]);
    if (!(count >= 0) || at + 8 + bytes > size) throw new CheckpointError(`${name} is cut off: the storage ${key} should have ${bytes} bytes, ${Math.max(0, size - at - 8)} follow`);
    places.set(key, { at: at + 8, count });
    at += 8 + bytes;
  }
  const storages: Storages = {
    check({ key, count }) {
      const place = places.get(key);
      if (place === undefined) throw new CheckpointError(`${name}: the storage ${key} is missing; the file is damaged`);
      if (place.count < count) throw new CheckpointError(`${name}: the storage ${key} has ${place.count} values, expected ${count}; the file is damaged`);
    },
    read: ({ key, dtype, count }) => source.read(places.get(key)!.at, count * (dtype === undefined ? 1 : bytesPerValue[dtype])),
  };
  return toCheckpoint(name, main.value, storages, keys.end);
}

/** Options for pickles of a file; storages that it names are collected. */
function options(source: string): UnpickleOptions & { storages: Storage[] } {
  const storages: Storage[] = [];
  return {
    source,
    allowed,
    storages,
    persistent: (id) => {
      const [kind, type, key, , count] = Array.isArray(id) ? (id as unknown[]) : [];
      const name = type instanceof PickledGlobal ? type.name : '';
      if (kind !== 'storage' || (!Object.hasOwn(storageTypes, name) && name !== 'torch.storage.UntypedStorage')) throw new CheckpointError(`${source}: a storage of ${name === '' ? 'no known kind' : name} cannot be read`);
      if (!Number.isSafeInteger(count) || (count as number) < 0) throw new CheckpointError(`${source}: the storage ${shown(key)} has ${shown(count)} values`);
      const storage: Storage = { key: shown(key), dtype: storageTypes[name], count: count as number };
      storages.push(storage);
      return storage;
    },
  };
}

/** Longer than any name of a tensor. */
const LONGEST_NAME = 65_536;

/** Takes the value of a pickle of `size` bytes apart: tensors by path, and the rest. */
function toCheckpoint(source: string, value: unknown, storages: Storages, size: number): TorchCheckpoint {
  const tensors = new Map<string, TensorRecord>();
  const views = { source, storages, expanded: 0 };
  // a list that holds another one twice, that holds another one twice… has more items than any memory
  let left = 100_000 + 16 * size;
  const walk = (node: unknown, path: string, depth: number): unknown => {
    left -= node instanceof Uint8Array ? node.length : 1;
    if (left < 0) throw new CheckpointError(`${source}: the same objects come again and again in its pickle, more often than in any checkpoint`);
    if (depth > 100) throw new CheckpointError(`${source}: values are nested more than 100 deep at ${path}`);
    if (node instanceof PickledObject) {
      const tensor = tensorOf(views, path, node, depth) ?? arrayOf(path, node);
      if (tensor !== undefined) {
        const name = path === '' ? 'tensor' : path;
        if (name.length > LONGEST_NAME) throw new CheckpointError(`${source}: a tensor's name has ${name.length} letters`);
        if (tensors.has(name)) throw new CheckpointError(`${source}: two tensors have the path ${name}`);
        tensors.set(name, tensor);
        return undefined;
      }
      if (node.type === 'torch.Size' || node.type.endsWith('.set')) return walk(node.args[0] ?? [], path, depth + 1);
      if (node.type === 'torch.device') return shown(node.args[0]);
      // dictionaries and namespaces: what they were made of and what was put in; fields of a dictionary are PyTorch's own
      const entries = new Map<unknown, unknown>();
      for (const part of [...node.args, node.items, node.type === 'argparse.Namespace' ? node.state : undefined]) {
        // each is looked at, also those that one key replaces
        left -= part instanceof Map ? part.size : Array.isArray(part) ? part.length : 0;
        if (part instanceof Map) for (const [key, item] of part) entries.set(key, item);
        else if (Array.isArray(part)) for (const pair of part) if (Array.isArray(pair) && pair.length === 2) entries.set(pair[0], pair[1]);
      }
      return walk(entries, path, depth + 1);
    }
    if (node instanceof PickledGlobal) return node.name;
    if (node instanceof Map || Array.isArray(node) || node instanceof Set) {
      const pairs = node instanceof Map ? [...node] : [...node].map((item, i) => [i, item] as const);
      const kept: [string, unknown][] = [];
      for (const [key, item] of pairs) {
        const name = shown(key);
        const rest = walk(item, path === '' ? name : `${path}.${name}`, depth + 1);
        if (rest !== undefined) kept.push([name, rest]);
      }
      if (pairs.length > 0 && kept.length === 0) return undefined;
      return node instanceof Map ? Object.fromEntries(kept) : kept.map(([, item]) => item);
    }
    if (node instanceof Uint8Array) return [...node];
    return node;
  };
  const arrayOf = (path: string, node: PickledObject): TensorRecord | undefined => {
    const array = pickledArray(`${source}: array ${path}`, node);
    if (array !== undefined) left -= byteLength(array); // it is there as often as it comes
    return array;
  };
  const extra = walk(value, '', 0);
  return { tensors, metadata: new Map(), extra };
}

/** The values of all views that repeat theirs more than fourfold, at most: an expanded tensor of 8192² is one. */
const MOST_EXPANDED = 2 ** 26;

/** What the tensors of a file have in common. */
interface Views {
  source: string;
  storages: Storages;
  /** Values of those that repeat theirs. */
  expanded: number;
}

function tensorOf(views: Views, path: string, node: PickledObject, depth: number): TensorRecord | undefined {
  const { source, storages } = views;
  if (node.type.startsWith('torch._utils._rebuild_parameter')) {
    if (depth > 100) throw new CheckpointError(`${source}: parameters are nested more than 100 deep at ${path}`);
    return node.args[0] instanceof PickledObject ? tensorOf(views, path, node.args[0], depth + 1) : undefined;
  }
  if (!node.type.startsWith('torch._utils._rebuild_tensor')) return undefined;
  const where = `${source}: tensor ${path}`;
  const [storage, offset, shape, strides] = node.args as [Storage, number, number[], number[]];
  const last = node.args[6];
  const dtype = storage?.dtype ?? (last instanceof PickledGlobal ? valueTypes[last.name] : undefined);
  if (dtype === undefined || storage?.key === undefined) throw new CheckpointError(`${where} has no storage of a known type`);
  const sizes = sizesOf(shape);
  const steps = sizesOf(strides);
  if (sizes === undefined || steps === undefined || sizes.length !== steps.length || !Number.isSafeInteger(offset) || offset < 0) throw new CheckpointError(`${where} has shape ${shown(shape)}, strides ${shown(strides)} and offset ${shown(offset)}, which make no view`);
  const size = sizes.reduce((a, b) => a * b, 1);
  const reach = size === 0 ? 0 : offset + 1 + sizes.reduce((sum, n, i) => sum + (n - 1) * steps[i]!, 0);
  const count = storage.dtype === undefined ? storage.count / bytesPerValue[dtype] : storage.count;
  if (!Number.isSafeInteger(size) || !(reach <= count)) throw new CheckpointError(`${where} of shape [${sizes.join(', ')}] reaches to value ${reach} of a storage of ${count}; the file is damaged`);
  storages.check(storage);
  if (size > 4 * count) views.expanded += size;
  if (views.expanded > MOST_EXPANDED) throw new CheckpointError(`${where} of shape [${sizes.join(', ')}] repeats the ${count} values of its storage, and with all that do so before it has more than ${MOST_EXPANDED}; save it as it was before it was expanded`);
  const bytes = bytesPerValue[dtype];
  return { dtype, shape: sizes, read: async () => contiguous(await storages.read(storage, bytes), { bytes, shape: sizes, strides: steps, offset }) };
}

/** PyTorch's own limit on a tensor's axes. */
const MOST_AXES = 64;

/** A tuple of sizes, or nothing. */
function sizesOf(value: unknown): number[] | undefined {
  const list = value instanceof PickledObject && value.type === 'torch.Size' ? value.args[0] : value;
  return Array.isArray(list) && list.length <= MOST_AXES && list.every((n) => Number.isSafeInteger(n) && n >= 0) ? (list as number[]) : undefined;
}

function swapBytes(bytes: Uint8Array, width: number): Uint8Array {
  const out = bytes.slice();
  for (let i = 0; i < out.length; i += width) out.subarray(i, i + width).reverse();
  return out;
}

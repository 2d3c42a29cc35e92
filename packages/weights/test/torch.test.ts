// PyTorch files put together by hand: what training scripts leave behind, what other machines write, what is made to do harm.
import { CheckpointError } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { type DType, type StateDict, bytesSource, parseNpz, parseSafetensors, parseTorch, readTorch, toFloat32, weightsOf, writableTensor, writeNpz, writeSafetensors, writeTorch } from '../src/index.js';
import { zipBytes } from '../src/zip.js';

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const word = (value: number): number[] => [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];

/** Instructions of a pickle. */
class Pickle {
  readonly #bytes: number[] = [0x80, 2];
  put(...bytes: number[]): this {
    for (const byte of bytes) this.#bytes.push(byte);
    return this;
  }
  bytes(bytes: Uint8Array): this {
    for (const byte of bytes) this.#bytes.push(byte);
    return this;
  }
  global(module: string, name: string): this {
    return this.put(...text(`c${module}\n${name}\n`));
  }
  string(value: string): this {
    return this.put(0x58, ...word(text(value).length), ...text(value));
  }
  integer(value: number): this {
    if (value < 2 ** 31) return this.put(0x4a, ...word(value));
    const bytes = Array.from({ length: 8 }, (_, i) => Math.floor(value / 256 ** i) % 256);
    return this.put(0x8a, 8, ...bytes);
  }
  tuple(values: readonly number[]): this {
    this.put(0x28);
    for (const value of values) this.integer(value);
    return this.put(0x74);
  }
  /** A tensor of a storage of `count`; an untyped one where a `dtype` is given. */
  tensor(key: string, count: number, shape: number[], strides: number[], dtype?: string): this {
    this.global('torch._utils', dtype === undefined ? '_rebuild_tensor_v2' : '_rebuild_tensor_v3').put(0x28, 0x28).string('storage');
    if (dtype === undefined) this.global('torch', 'FloatStorage');
    else this.global('torch.storage', 'UntypedStorage');
    this.string(key).string('cpu').integer(count).put(0x74, 0x51).integer(0).tuple(shape).tuple(strides).put(0x89).global('collections', 'OrderedDict').put(0x29, 0x52);
    if (dtype !== undefined) this.global('torch', dtype);
    return this.put(0x74, 0x52);
  }
  end(): Uint8Array {
    return Uint8Array.from([...this.#bytes, 0x2e]);
  }
}

/** A dictionary of one value. */
const one = (name: string, value: (pickle: Pickle) => Pickle): Uint8Array => value(new Pickle().put(0x7d, 0x28).string(name)).put(0x75).end();

function file(pickle: Uint8Array, { storages = [], byteorder = 'little', compress = false }: { storages?: Uint8Array[]; byteorder?: string; compress?: boolean } = {}): Promise<Uint8Array> {
  const files: [string, Uint8Array][] = [['data.pkl', pickle], ['byteorder', text(byteorder)], ...storages.map((bytes, i): [string, Uint8Array] => [`data/${i}`, bytes])];
  return zipBytes(files.map(([name, bytes]) => ({ name: `archive/${name}`, read: async () => bytes })), { compress });
}

async function refused(bytes: Uint8Array, message: RegExp): Promise<void> {
  const began = process.cpuUsage();
  const error = await parseTorch(bytes, 'evil.pt').catch((e: unknown) => e);
  expect(error).toBeInstanceOf(CheckpointError);
  expect((error as Error).message).toMatch(message);
  expect(process.cpuUsage(began).user / 1e6).toBeLessThan(5);
}

describe('a small file that would become large', () => {
  it('by lists that hold others twice', async () => {
    const doubled = (levels: number): Pickle => {
      const pickle = new Pickle().put(0x5d);
      for (let level = 0; level < levels; level++) pickle.put(0x71, level, 0x30, 0x28, 0x68, level, 0x68, level, 0x6c);
      return pickle;
    };
    await refused(await file(doubled(60).end()), /the same objects come again and again/);
    // as a name
    const { extra } = await parseTorch(await file(new Pickle().put(0x7d).bytes(doubled(60).end().subarray(2, -1)).put(0x4b, 7, 0x73).end()));
    expect(extra).toEqual({ '[…, …]': 7 });
    const { tensors } = await parseTorch(await file(doubled(10).end()));
    expect(tensors.size).toBe(0);
  });

  it('by bytes that come again and again', async () => {
    const pickle = new Pickle().put(0x5d, 0x28).put(0x42, ...word(50_000)).bytes(new Uint8Array(50_000)).put(0x71, 0);
    for (let i = 0; i < 20_000; i++) pickle.put(0x68, 0);
    await refused(await file(pickle.put(0x65).end()), /the same objects come again and again/);
  });

  it('by strides of 0; what is expanded and can be held is read', async () => {
    for (const count of [2 ** 27, 2 ** 40]) await refused(await file(one('w', (pickle) => pickle.tensor('0', 1, [count], [0])), { storages: [new Uint8Array(4)] }), /tensor w of shape \[\d+\] repeats the 1 values of its storage/);
    const many = new Pickle().put(0x7d, 0x28);
    for (let i = 0; i < 40; i++) many.string(`w${i}`).tensor('0', 1, [2 ** 21], [0]);
    await refused(await file(many.put(0x75).end(), { storages: [new Uint8Array(4)] }), /with all that do so before it/);
    const state = await parseTorch(await file(one('mask', (pickle) => pickle.tensor('0', 2, [1000, 1000, 2], [0, 0, 1])), { storages: [new Uint8Array(Float32Array.of(1, 2).buffer)] }));
    const values = await toFloat32(state.tensors.get('mask')!);
    expect([values.length, values[0], values[1], values.at(-1)]).toEqual([2e6, 1, 2, 2]);
  });

  it('by integers, objects and what is remembered', async () => {
    await refused(await file(new Pickle().put(0x8b, ...word(300_000)).bytes(new Uint8Array(300_000).fill(0x7f)).end()), /an integer of 300000 bytes/);
    await refused(await file(new Pickle().put(0x4c).bytes(text('7'.repeat(300_000))).put(10).end()), /an integer of 300000 digits/);
    for (const [opcode, count, message] of [[0x7d, 3e6, /makes more than 2097152 objects/], [0x94, 5e6, /remembers more than 4194304 values/]] as const) {
      const bytes = new Uint8Array(count + 4).fill(opcode);
      bytes.set([0x80, 4, 0x4e]);
      bytes[count + 3] = 0x2e;
      await refused(await file(bytes, { compress: true }), message);
    }
    await refused(await file(new Uint8Array(20 * 2 ** 20), { compress: true }), /its data\.pkl would unpack to 20971520 bytes, which no checkpoint needs/);
  });

  it('by parameters that hold themselves, and shapes of what is no number', async () => {
    // the list of arguments is given to the call, and then what it made is put into it
    await refused(await file(new Pickle().global('torch._utils', '_rebuild_parameter').put(0x5d, 0x71, 0, 0x52, 0x71, 1, 0x30, 0x68, 0, 0x68, 1, 0x61, 0x30, 0x68, 1).end()), /parameters are nested more than 100 deep/);
    const shape = (put: (pickle: Pickle) => Pickle): Uint8Array => put(new Pickle().global('torch._utils', '_rebuild_tensor_v2').put(0x28, 0x28).string('storage').global('torch', 'FloatStorage').string('0').string('cpu').integer(1).put(0x74, 0x51).integer(0)).tuple([1]).put(0x74, 0x52).end();
    const huge = [0x8a, 9, ...new Uint8Array(8), 1];
    for (const pickle of [shape((p) => p.put(0x28, ...huge, 0x74)), shape((p) => p.put(0x5d, 0x71, 0, 0x68, 0, 0x61)), shape((p) => p.tuple(Array.from({ length: 65 }, () => 1)))]) await refused(await file(pickle, { storages: [new Uint8Array(4)] }), /which make no view/);
  });
});

describe('what other machines and newer versions write', () => {
  const untyped = one('w', (pickle) => pickle.tensor('0', 4, [2], [1], 'uint16'));

  it('values of big-endian machines, also where the storage has no type', async () => {
    const state = await parseTorch(await file(untyped, { storages: [Uint8Array.of(0, 1, 0, 2)], byteorder: 'big' }));
    expect([...(await toFloat32(state.tensors.get('w')!))]).toEqual([1, 2]);
    expect([...(await toFloat32((await parseTorch(await file(untyped, { storages: [Uint8Array.of(1, 0, 2, 0)] }))).tensors.get('w')!))]).toEqual([1, 2]);
  });

  it('parameters with fields of their own', async () => {
    const pickle = one('w', (own) => own.global('torch._utils', '_rebuild_parameter_with_state').put(0x28).tensor('0', 2, [2], [1]).put(0x88).global('collections', 'OrderedDict').put(0x29, 0x52, 0x7d, 0x74, 0x52));
    const state = await parseTorch(await file(pickle, { storages: [new Uint8Array(Float32Array.of(1, 2).buffer)] }));
    expect([...(await toFloat32(state.tensors.get('w')!))]).toEqual([1, 2]);
  });

  it('a storage that could not be read is read at the next try', async () => {
    const bytes = await file(one('w', (pickle) => pickle.tensor('0', 2, [2], [1])), { storages: [new Uint8Array(Float32Array.of(1, 2).buffer)] });
    let cut = false;
    const source = { ...bytesSource(bytes, 'x.pt'), read: async (offset: number, length: number) => (cut ? Promise.reject(new CheckpointError('the connection was cut')) : bytes.slice(offset, offset + length)) };
    const record = (await readTorch(source)).tensors.get('w')!;
    cut = true;
    await expect(record.read()).rejects.toThrow(/^the connection was cut$/);
    cut = false;
    expect([...(await toFloat32(record))]).toEqual([1, 2]);
  });
});

describe('the weights of a training run', () => {
  const checkpoint = (shapes: Record<string, number[]>): StateDict => ({
    tensors: new Map(Object.entries(shapes).map(([name, shape]) => [name, { dtype: 'F32' as DType, shape, read: async () => new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)) }])),
    metadata: new Map([['a', 'b']]),
  });
  const namesOf = (shapes: Record<string, number[]>, which?: string): string[] => [...weightsOf(checkpoint(shapes), which).tensors.keys()];

  it('are tensors, not an average’s decay', () => {
    expect(namesOf({ 'ema.decay': [], 'ema.num_updates': [], 'model.w': [2], 'model.scale': [] })).toEqual(['w', 'scale']);
    expect(namesOf({ 'ema.decay': [], 'ema.w': [2], 'model.w': [2] })).toEqual(['decay', 'w']);
    expect(namesOf({ 'ema.decay': [], w: [2] })).toEqual(['ema.decay', 'w']);
  });

  it('have their own names, whatever the model was wrapped in', () => {
    for (const wrapper of ['module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.']) {
      expect(namesOf({ [`${wrapper}w`]: [2], [`${wrapper}b`]: [] })).toEqual(['w', 'b']);
      expect(namesOf({ [`model.${wrapper}w`]: [2], 'opt.x': [1] })).toEqual(['w']);
      expect(namesOf({ [`model.${wrapper}w`]: [2], [`ema.${wrapper}v`]: [2] }, 'model')).toEqual(['w']);
    }
    expect(namesOf({ 'model.module.w': [2], 'model.head.w': [2] })).toEqual(['module.w', 'head.w']);
    const plain = checkpoint({ w: [2] });
    expect(weightsOf(plain)).toBe(plain);
    expect([...weightsOf(checkpoint({ '_orig_mod.w': [2] })).metadata]).toEqual([['a', 'b']]);
  });
});

it('of metadata whose key comes twice the last counts, in every format', async () => {
  const tensors = [['w', writableTensor(Float32Array.of(1), [1])]] as const;
  const twice: [string, string][] = [['k', '1'], ['other', 'x'], ['k', '2']];
  for (const state of [await parseSafetensors(writeSafetensors(tensors, twice)), await parseTorch(await writeTorch(tensors, twice)), await parseNpz(await writeNpz(tensors, { metadata: twice }))]) expect([...state.metadata]).toEqual([['k', '2'], ['other', 'x']]);
});

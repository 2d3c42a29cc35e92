import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { parseNpz, parseTorch, tensorParts, toFloat32, weightsOf, writableTensor, writeNpy, writeNpz, writeTorch, writeTorchArrays, type WritableTensor } from '../src/index.js';

const folder = new URL('../../../fixtures/golden/files/', import.meta.url);
const read = (file: string): Uint8Array => new Uint8Array(readFileSync(new URL(file, folder)));

describe('files written by others', () => {
  it('names what is refused', async () => {
    await expect(parseTorch(read('malicious_reduce.pt'), 'malicious_reduce.pt')).rejects.toThrow(/asks for (posix|os|nt)\.system.*nothing was run/);
    await expect(parseTorch(read('whole_module.pt'), 'whole_module.pt')).rejects.toThrow(/torch\.nn\.modules\.linear\.Linear.*save model\.state_dict\(\) instead/);
    await expect(parseTorch(read('html.pt'), 'html.pt')).rejects.toThrow(/html\.pt is no PyTorch checkpoint: it begins with "<!?/i);
  });

  it('keep what is beside the tensors, and give the averaged weights first', async () => {
    const checkpoint = await parseTorch(read('nested_checkpoint.pt'));
    expect(checkpoint.extra).toMatchObject({ train_steps: 5000, args: { model: 'DiT-XL/2', image_size: 256, tau_range: [4, 0.1] } });
    expect([...weightsOf(checkpoint).tensors.keys()]).toEqual(['weight', 'bias']);
    expect(await toFloat32(weightsOf(checkpoint).tensors.get('bias')!)).toEqual(await toFloat32(checkpoint.tensors.get('ema.bias')!));
    expect(await toFloat32(weightsOf(checkpoint, 'model').tensors.get('bias')!)).toEqual(await toFloat32(checkpoint.tensors.get('model.bias')!));
    expect(() => weightsOf(checkpoint, 'student')).toThrow(/under: model, ema, opt/);
    const plain = await parseTorch(read('dit_f32.pt'));
    expect(weightsOf(plain)).toBe(plain);
  });
});

it('reads on where the pickles of an old file are longer than what was read first, and says where they are cut off', async () => {
  const long = 2 ** 21;
  const magic = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e];
  const name = Uint8Array.from([0x80, 2, 0x7d, 0x58, long & 255, (long >> 8) & 255, (long >> 16) & 255, 0, ...new Uint8Array(long).fill(0x61), 0x4b, 7, 0x73, 0x2e]);
  const file = Uint8Array.from([...magic, 0x80, 2, 0x4d, 0xe9, 3, 0x2e, 0x80, 2, 0x7d, 0x2e, ...name, 0x80, 2, 0x5d, 0x2e]);
  const { extra } = await parseTorch(file, 'old.pt');
  expect(Object.entries(extra as object)).toEqual([['a'.repeat(long), 7]]);
  await expect(parseTorch(file.subarray(0, long), 'old.pt')).rejects.toThrow(/old\.pt: the pickle is cut off/);
});

const values = createRng(0).normal(12);
const tensors = [
  ['fc.weight', writableTensor(values, [3, 4])],
  ['naïve', writableTensor(values, [12], 'F16')],
  ['scalar', writableTensor(values.subarray(0, 1), [])],
] as const;

it('an array that is damaged is so in parts too, and one left early holds nothing open', async () => {
  const bytes = await writeNpz([['arr_0', { dtype: 'U8', shape: [300_000], bytes: new Uint8Array(300_000).fill(7) }]]);
  const record = async (own: Uint8Array) => (await parseNpz(own, 'samples.npz')).tensors.get('arr_0')!;
  const drain = async (own: Uint8Array): Promise<number> => {
    let sum = 0;
    for await (const part of tensorParts(await record(own))) sum += part.length;
    return sum;
  };
  expect(await drain(bytes)).toBe(300_000);
  bytes[200_000]! ^= 1;
  await expect((await record(bytes)).read()).rejects.toThrow(/^samples\.npz: arr_0\.npy: .*damaged/);
  await expect(drain(bytes)).rejects.toThrow(/^samples\.npz: arr_0\.npy: .*damaged/);
  for await (const _ of tensorParts(await record(bytes))) break;
});

describe('what we write', () => {
  it.each(['pt', 'npz', 'compressed npz'])('comes back: %s', async (format) => {
    const bytes = format === 'pt' ? await writeTorch(tensors) : await writeNpz(tensors, { compress: format !== 'npz' });
    const state = format === 'pt' ? await parseTorch(bytes) : await parseNpz(bytes);
    expect([...state.tensors.keys()]).toEqual(['fc.weight', 'naïve', 'scalar']);
    expect(state.tensors.get('fc.weight')!.shape).toEqual([3, 4]);
    expect(state.tensors.get('scalar')!.shape).toEqual([]);
    expect(await toFloat32(state.tensors.get('fc.weight')!)).toEqual(values);
    expect(state.tensors.get('naïve')!.dtype).toBe('F16');
  });

  it.each(['pt', 'npz'])('keeps text beside the tensors: %s', async (format) => {
    const metadata: [string, string][] = [['tinyfusion.prune', '{"kept":[0,2]}'], ['__proto__', 'ümläut "quoted"']];
    const state = format === 'pt' ? await parseTorch(await writeTorch(tensors, new Map(metadata).entries())) : await parseNpz(await writeNpz(tensors, { metadata: new Map(metadata).entries() }));
    expect([...state.metadata]).toEqual(metadata);
    expect([...state.tensors.keys()]).toEqual(['fc.weight', 'naïve', 'scalar']);
    // an array of that name that is somebody else's stays one
    const own = await parseNpz(await writeNpz([['__metadata__', { dtype: 'U8', shape: [3], bytes: Uint8Array.of(1, 2, 3) }]]));
    expect([[...own.tensors.keys()], own.metadata.size]).toEqual([['__metadata__'], 0]);
  });

  it('has the bytes that its type and shape need', async () => {
    const short: WritableTensor = { dtype: 'F32', shape: [2], bytes: new Uint8Array(4) };
    for (const write of [() => writeTorch([['w', short]]), () => writeNpz([['w', short]]), async () => writeTorchArrays([['w', short]]), async () => writeNpy(short)]) await expect(write()).rejects.toThrow(/of type F32 and shape \[2\] needs 8 bytes, got 4/);
  });

  const torch = (() => {
    try {
      execFileSync('python3', ['-c', 'import torch'], { stdio: 'ignore' });
      return 'python3';
    } catch {
      try {
        execFileSync('/usr/bin/python3', ['-c', 'import torch'], { stdio: 'ignore' });
        return '/usr/bin/python3';
      } catch {
        return undefined;
      }
    }
  })();

  it.skipIf(torch === undefined)('numpy’s arrays inside of a PyTorch file go both ways, as torch-fidelity keeps statistics', async () => {
    const at = mkdtempSync(join(tmpdir(), 'weights-'));
    const own: WritableTensor = { dtype: 'F64', shape: [2, 3], bytes: new Uint8Array(Float64Array.from([1, 2, 3, 4, 5, 1 / 3]).buffer) };
    writeFileSync(join(at, 'ours.pt'), await writeTorchArrays([['mu', own]]));
    const program = `
import numpy as np, torch
mu = torch.load('ours.pt')['mu']
assert isinstance(mu, np.ndarray) and mu.dtype == np.float64 and mu.tolist() == [[1, 2, 3], [4, 5, 1 / 3]], mu
torch.save({'mu': mu, 'sigma': np.asfortranarray(mu.astype('>f4')), 'n': np.int64(7), 'flags': np.array([True, False])}, 'theirs.pt')
torch.save({'mu': mu}, 'theirs4.pt', pickle_protocol=4)
torch.save({'bad': np.array([{}, []], dtype=object)}, 'objects.pt')`;
    execFileSync(torch!, ['-c', program], { cwd: at, stdio: 'pipe' });
    const load = async (name: string) => parseTorch(new Uint8Array(readFileSync(join(at, name))));
    const theirs = await load('theirs.pt');
    expect([...theirs.tensors].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual([['mu', 'F64', [2, 3]], ['sigma', 'F32', [2, 3]], ['flags', 'BOOL', [2]]]);
    expect([...(await toFloat32(theirs.tensors.get('sigma')!))]).toEqual([1, 2, 3, 4, 5, Math.fround(1 / 3)]);
    for (const name of ['theirs.pt', 'theirs4.pt', 'ours.pt']) expect(await (await load(name)).tensors.get('mu')!.read()).toEqual(own.bytes);
    await expect(load('objects.pt')).rejects.toThrow(/array bad is a numpy array of Python objects/);
  });

  it.skipIf(torch === undefined)('PyTorch and numpy load it', async () => {
    const at = mkdtempSync(join(tmpdir(), 'weights-'));
    writeFileSync(join(at, 'a.pt'), await writeTorch(tensors, [['made by', 'a test']]));
    writeFileSync(join(at, 'a.npz'), await writeNpz(tensors, { compress: true, metadata: [['made by', 'a test']] }));
    const program = `
import json, sys, torch, numpy
t = torch.load('a.pt', weights_only=True) if 'weights_only' in torch.load.__code__.co_varnames else torch.load('a.pt')
n = numpy.load('a.npz', allow_pickle=False)
print(json.dumps({'names': list(t), 'dtypes': [str(v.dtype) for v in t.values()], 'shape': list(t['fc.weight'].shape), 'values': t['fc.weight'].flatten().tolist(), 'numpy': n['fc.weight'].flatten().tolist(), 'scalar': float(n['scalar']), 'text': json.loads(bytes(n['__metadata__']))}))`;
    const out = JSON.parse(execFileSync(torch!, ['-c', program], { cwd: at, encoding: 'utf8' })) as Record<string, unknown>;
    expect(out).toEqual({ names: ['fc.weight', 'naïve', 'scalar'], dtypes: ['torch.float32', 'torch.float16', 'torch.float32'], shape: [3, 4], values: [...values], numpy: [...values], scalar: values[0], text: { 'made by': 'a test' } });
  });
});

import { readFileSync } from 'node:fs';
import { CheckpointError, createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { bytesSource, parseSafetensors, readCheckpoint, stateDictHash, stateDictOf, toFloat32, withDtype, writableTensor, writeSafetensors } from '../src/index.js';

const folder = new URL('../../../fixtures/golden/files/', import.meta.url);
const read = (file: string): Uint8Array => new Uint8Array(readFileSync(new URL(file, folder)));

describe('what we write', () => {
  it('comes back, names as they are', async () => {
    const values = Float32Array.of(1, -2.5, 3.25, 0);
    const bytes = writeSafetensors([['__proto__', writableTensor(values, [2, 2])], ['übung.weight', writableTensor(values, [4], 'F16')]], [['note', 'a "quoted" text']]);
    const state = await parseSafetensors(bytes);
    expect(await toFloat32(state.tensors.get('__proto__')!)).toEqual(values);
    expect(await toFloat32(state.tensors.get('übung.weight')!)).toEqual(values);
    expect(state.metadata.get('note')).toBe('a "quoted" text');
  });

  it('is told from a pickle, whatever the length of its header', async () => {
    for (let length = 8; length < 1200; length += 8) {
      const bytes = writeSafetensors([['x', writableTensor(Float32Array.of(1), [1])]], [['note', 'n'.repeat(length)]]);
      expect([...(await readCheckpoint(bytesSource(bytes))).tensors.keys()]).toEqual(['x']);
    }
  });

  it('rounds halves to nearest even', async () => {
    const cases: [number, number][] = [[65504, 65504], [65519.99, 65504], [Infinity, Infinity], [2 ** -24, 2 ** -24], [2 ** -25, 0], [1.5 * 2 ** -24, 2 ** -23], [1 + 2 ** -11, 1], [1 + 3 * 2 ** -11, 1 + 2 ** -9], [-0.1, -0.0999755859375], [-Infinity, -Infinity]];
    const state = await parseSafetensors(writeSafetensors([['x', writableTensor(Float32Array.from(cases, ([v]) => v), [cases.length], 'F16')]]));
    expect(Array.from(await toFloat32(state.tensors.get('x')!))).toEqual(cases.map(([, v]) => v));
  });

  it('refuses values that a half would make infinite, whoever asks for halves', async () => {
    const values = Float32Array.of(1, -65520);
    const message = (name: string): string => `${name} has a value of -65520, which F16 cannot hold`;
    expect(() => writableTensor(values, [2], 'F16')).toThrow(message('the tensor'));
    expect(() => writableTensor(values, [2], 'F16', 'fc.weight')).toThrow(message('fc.weight'));
    const halves = withDtype(stateDictOf([['fc.weight', { shape: [2], values }]]), 'F16');
    await expect(toFloat32(halves.tensors.get('fc.weight')!)).rejects.toThrow(message('fc.weight'));
  });

  it('has a hash that does not depend on order', async () => {
    const [a, b] = [{ shape: [1], values: Float32Array.of(1) }, { shape: [1], values: Float32Array.of(2) }];
    const hash = await stateDictHash(stateDictOf([['a', a], ['b', b]]));
    expect(await stateDictHash(stateDictOf([['b', b], ['a', a]]))).toBe(hash);
    expect(await stateDictHash(stateDictOf([['a', b], ['b', a]]))).not.toBe(hash);
    const steps: string[] = [];
    for (const state of [stateDictOf([]), stateDictOf([['a', a], ['b', b]])]) await stateDictHash(state, { onProgress: ({ step, total }) => steps.push(`${step}/${total}`) });
    expect(steps).toEqual(['0/0', '1/2', '2/2']);
  });
});

it('ends in data or in a CheckpointError on 5,000 mutated files', async () => {
  const rng = createRng(1);
  const good = read('all_dtypes.safetensors');
  let refused = 0;
  for (let i = 0; i < 5000; i++) {
    const bytes = good.slice(0, i % 5 === 0 ? rng.integers(0, good.length + 1, 1)[0] : good.length);
    for (const at of rng.integers(0, Math.max(1, bytes.length), 1 + (i % 4))) bytes[at] = rng.integers(0, 256, 1)[0]!;
    try {
      const state = await parseSafetensors(bytes);
      for (const record of state.tensors.values()) await record.read();
    } catch (error) {
      expect(error).toBeInstanceOf(CheckpointError);
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(1000);
});

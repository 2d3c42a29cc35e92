import { expect, it } from 'vitest';
import { ArgumentError, createRng, numpyRandom, partOfNormal, restoreRng, torchCpu, torchCuda } from '../src/index.js';

it('is Philox 4x32-10: the known-answer vector of the paper for zero key and counter', () => {
  // Random123 kat_vectors: philox4x32 10, all zeros -> 6627e8d5 e169c58d bc57ac4c 9b00dbd8
  const words = [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8];
  expect(Array.from(createRng(0).uniform(4))).toEqual(words.map((w) => (w >>> 8) * 2 ** -24));
});

it('goes on from a saved state', () => {
  const rng = createRng(7);
  rng.normal(13);
  const again = createRng(JSON.parse(JSON.stringify(rng.state())));
  expect(again.normal(9)).toEqual(rng.normal(9));
});

it('has the moments of its distributions', () => {
  const rng = createRng(3);
  const mean = (a: Float32Array) => a.reduce((s, v) => s + v, 0) / a.length;
  const n = 200_000;
  const uniform = rng.uniform(n);
  const normal = rng.normal(n);
  const gumbel = rng.gumbel(n);
  expect(mean(uniform)).toBeCloseTo(0.5, 2);
  expect(mean(normal)).toBeCloseTo(0, 2);
  expect(mean(normal.map((v) => v * v))).toBeCloseTo(1, 1.9);
  expect(mean(gumbel)).toBeCloseTo(0.5772, 1.9);
});

it('permutes, and draws integers from the whole range', () => {
  const rng = createRng(11);
  expect(Array.from(rng.permutation(50)).sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
  const drawn = new Set(rng.integers(-2, 3, 1000));
  expect([...drawn].sort((a, b) => a - b)).toEqual([-2, -1, 0, 1, 2]);
});

it('splits into streams that differ, without advancing', () => {
  const rng = createRng(5);
  const before = rng.state();
  const a = rng.split('data').uniform(8);
  expect(rng.state()).toEqual(before);
  expect(rng.split('data').uniform(8)).toEqual(a);
  expect(rng.split('noise').uniform(8)).not.toEqual(a);
});

it('refuses a seed that is none', () => {
  expect(() => createRng(-1)).toThrow(/seed is -1, expected an integer/);
});

it('draws a part of a call’s normals as the whole call does, and stands where it would', () => {
  for (const [count, start, size] of [[64, 0, 64], [64, 16, 20], [37, 5, 31], [37, 36, 1], [10, 10, 0]] as const) {
    for (const make of [() => createRng(5), () => torchCuda(5)]) {
      const [whole, part] = [make(), make()];
      expect(partOfNormal(part, count, { start, size })).toEqual(whole.normal(count).slice(start, start + size));
      expect(part.state()).toEqual(whole.state());
    }
  }
  expect(() => partOfNormal(createRng(0), 4, { start: 3, size: 2 })).toThrow('inside of the 4 numbers');
});

it.each([['philox', createRng(1)], ['torch-cpu', torchCpu(1)], ['torch-cuda', torchCuda(1)], ['numpy', numpyRandom(1)]] as const)('%s draws integers that 32 bits hold, and no others', (_, rng) => {
  for (const [low, high] of [[-(2 ** 31), 2 ** 31], [2 ** 31 - 1, 2 ** 31], [-(2 ** 31), 1 - 2 ** 31]] as const) for (const drawn of rng.integers(low, high, 50)) expect(drawn >= low && drawn < high).toBe(true);
  for (const [low, high] of [[0, 2 ** 32], [2 ** 31, 2 ** 31 + 2], [-(2 ** 31) - 1, 0], [0, 2 ** 53]] as const) expect(() => rng.integers(low, high, 3)).toThrow('expected integers from -2^31 to 2^31');
  expect(() => rng.integers(3, 3, 1)).toThrow('integers with low < high');
});

it('torchCpu splits by its seed, wherever it stands', () => {
  const rng = torchCpu(2 ** 40 + 7);
  const first = rng.split('x').uniform(4);
  expect(first).toEqual(createRng(7).split('x').uniform(4));
  for (const count of [1, 700, 2000]) {
    rng.uniform(count);
    expect(rng.split('x').uniform(4)).toEqual(first);
    expect(restoreRng(JSON.parse(JSON.stringify(rng.state()))).split('x').uniform(4)).toEqual(first);
  }
  const { seed: _, ...old } = rng.state();
  expect(torchCpu(old).uniform(9)).toEqual(rng.uniform(9));
});

const twister = torchCpu(3).state();
it.each([
  undefined, null, {}, 7, { kind: 'mt' },
  { kind: 'philox4x32', counter: 0 }, { kind: 'philox4x32', key: [1], counter: 0 }, { kind: 'philox4x32', key: [1, -2], counter: 0 }, { kind: 'philox4x32', key: [1, 2], counter: 5n }, { kind: 'philox4x32', key: [1, 2] },
  { kind: 'torch-cpu' }, { ...twister, twister: 'x'.repeat(625) }, { ...twister, twister: twister.twister.map(() => 'a') }, { ...twister, twister: [...twister.twister.slice(0, 624), 625] }, { ...twister, spare: 'x' }, { ...twister, spare: undefined }, { ...twister, seed: -1 },
  { kind: 'torch-cuda', seed: 1 }, { kind: 'torch-cuda', seed: 1, offset: 0, threads: 0 }, { kind: 'torch-cuda', seed: 1, offset: 3, threads: 256 }, { kind: 'torch-cuda', seed: -1, offset: 0, threads: 256 },
])('no stream is restored from %o', (state) => {
  expect(() => restoreRng(state as never)).toThrow(ArgumentError);
});

it('torchCuda needs threads for a block', () => {
  expect(() => torchCuda(0, { threadsPerMultiprocessor: 100 })).toThrow('threadsPerMultiprocessor is 100, expected at least the 256 of a block');
});

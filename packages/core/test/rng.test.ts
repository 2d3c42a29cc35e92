import { expect, it } from 'vitest';
import { createRng, partOfNormal, torchCuda } from '../src/index.js';

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

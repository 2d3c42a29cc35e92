// What PyTorch printed on CUDA devices, to four digits, in public threads: pytorch/pytorch issues 158398 (seed 42,
// [1, 64, 2048]) and 143086 (seed 1, 9,483,264 values on an H100 and on an A100).
import { describe, expect, it } from 'vitest';
import { ArgumentError, restoreRng, torchCuda } from '../src/index.js';

const printed = (values: ArrayLike<number>) => Array.from(values, (v) => v.toFixed(4));

describe('torchCuda', () => {
  it('draws the normal values that PyTorch prints', () => {
    expect(printed(torchCuda(0).normal(3))).toEqual(['-0.9247', '-0.4253', '-2.6438']);
    expect(printed(torchCuda(0).uniform(6))).toEqual(['0.3990', '0.5167', '0.0249', '0.9401', '0.9459', '0.7967']);
    const values = torchCuda(42).normal(64 * 2048);
    expect(printed(values.subarray(0, 3))).toEqual(['0.1940', '2.1614', '-0.1721']);
    expect(printed(values.subarray(2045, 2051))).toEqual(['1.4540', '-2.7733', '-0.8932', '-0.4574', '0.8063', '0.1580']);
  });

  it('places draws of more values than threads as the card does', () => {
    const small = torchCuda(42, { multiprocessors: 28, threadsPerMultiprocessor: 1536 }).normal(64 * 2048);
    expect(printed(small.subarray(63 * 2048, 63 * 2048 + 3))).toEqual(['-1.2356', '-0.4083', '-0.4695']);
    expect(printed(small.subarray(-3))).toEqual(['-0.4841', '1.2850', '-0.0282']);
    const long = 49 * 12 * 112 * 144;
    expect(printed(torchCuda(1).normal(long).subarray(-3))).toEqual(['0.1549', '-0.6797', '-0.1656']);
    expect(printed(torchCuda(1, { multiprocessors: 132 }).normal(long).subarray(-3))).toEqual(['-0.6970', '-0.7780', '0.3267']);
  });

  it('goes on from a saved state', () => {
    const rng = torchCuda(7);
    rng.normal(1000);
    const resumed = restoreRng(JSON.parse(JSON.stringify(rng.state())));
    expect(resumed.normal(50)).toEqual(rng.normal(50));
    expect(resumed.integers(0, 1000, 50)).toEqual(rng.integers(0, 1000, 50));
  });

  it('permutes', () => {
    for (const n of [1, 2, 16, 256, 1000]) expect([...torchCuda(3).permutation(n)].toSorted((a, b) => a - b)).toEqual(Array.from({ length: n }, (_, i) => i));
  });

  it('refuses what is no seed', () => {
    expect(() => torchCuda(-1)).toThrow(ArgumentError);
    expect(() => torchCuda(0, { multiprocessors: 0 })).toThrow(/multiprocessors is 0, expected a positive integer/);
    expect(() => restoreRng({ kind: 'dice' } as never)).toThrow(/RngState\.kind/);
  });
});

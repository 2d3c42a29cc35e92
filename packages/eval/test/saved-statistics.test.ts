import { CheckpointError } from '@tinyfusion/core';
import { type WritableTensor, parseNpz, writableTensor, writeNpz } from '@tinyfusion/weights';
import { describe, expect, it } from 'vitest';
import { readStatistics, statisticsTensors } from '../src/index.js';
import { correlatedRows, statistics } from './gaussians.js';

const pooled = statistics(correlatedRows(40, 5, 1), 5);
const spatial = statistics(correlatedRows(40, 3, 2), 3);
const saved = async (arrays: Iterable<readonly [string, WritableTensor]>) => parseNpz(await writeNpz(arrays), 'test.npz');
const doubles = (shape: number[], ...values: number[]): WritableTensor => ({ dtype: 'F64', shape, bytes: new Uint8Array(Float64Array.from(values).buffer) });

describe('saved statistics', () => {
  it('come back to the bit, in the layout of pytorch-fid', async () => {
    const state = await saved(statisticsTensors({ pooled }));
    expect([...state.tensors.keys()]).toEqual(['mu', 'sigma']);
    expect(state.tensors.get('sigma')).toMatchObject({ dtype: 'F64', shape: [5, 5] });
    const read = await readStatistics(state, 'test.npz', { dimension: 5 });
    expect(read).toEqual({ pooled: { ...pooled, count: Number.MAX_SAFE_INTEGER } });
  });

  it('come back in the layout of ADM, with images beside them', async () => {
    const state = await saved([['arr_0', { dtype: 'U8', shape: [1, 1, 1, 3], bytes: Uint8Array.of(1, 2, 3) }], ...statisticsTensors({ pooled, spatial })]);
    const read = await readStatistics(state, 'test.npz', { dimension: 5, spatialDimension: 3 });
    expect(read.pooled.covariance).toEqual(pooled.covariance);
    expect(read.spatial?.mean).toEqual(spatial.mean);
    await expect(readStatistics(state, 'test.npz', { spatialDimension: 4 })).rejects.toThrow('test.npz: mu_s and sigma_s have shapes [3] and [3, 3], expected [4] and [4, 4], statistics of 4 features');
  });

  it('are taken in float32 too', async () => {
    const { pooled: read } = await readStatistics(await saved([['mu', writableTensor(Float32Array.of(1, 2), [2])], ['sigma', writableTensor(Float32Array.of(2, 0.1, 0.1, 1), [2, 2])]]), 'test.npz');
    expect([...read.covariance]).toEqual([2, Math.fround(0.1), Math.fround(0.1), 1]);
  });

  it.each([
    ['no statistics', [['arr_0', doubles([1], 1)]], 'test.npz has no statistics, mu and sigma; it has: arr_0'],
    ['half of a pair', [['mu', doubles([1], 1)]], 'test.npz has mu but no sigma'],
    ['half of the second pair', [['mu', doubles([1], 1)], ['sigma', doubles([1, 1], 1)], ['sigma_s', doubles([1, 1], 1)]], 'test.npz has sigma_s but no mu_s'],
    ['another size', [['mu', doubles([2], 1, 2)], ['sigma', doubles([1, 1], 1)]], 'mu and sigma have shapes [2] and [1, 1], expected [D] and [D, D]'],
    ['integers', [['mu', { dtype: 'I32', shape: [1], bytes: new Uint8Array(4) }], ['sigma', doubles([1, 1], 1)]], 'mu is of type I32'],
    ['NaN', [['mu', doubles([1], Number.NaN)], ['sigma', doubles([1, 1], 1)]], 'mu, value 0 is NaN'],
    ['a negative variance', [['mu', doubles([2], 0, 0)], ['sigma', doubles([2, 2], 1, 0, 0, -1)]], 'the variance of feature 1 is -1'],
    ['no symmetry', [['mu', doubles([2], 0, 0)], ['sigma', doubles([2, 2], 1, 0.1, 0.2, 1)]], 'sigma is not symmetric: [1, 0] is 0.2, [0, 1] is 0.1'],
  ] as [string, [string, WritableTensor][], string][])('refuses %s', async (_, arrays, message) => {
    const reading = readStatistics(await saved(arrays), 'test.npz');
    await expect(reading).rejects.toThrow(message);
    await expect(reading).rejects.toThrow(CheckpointError);
  });

  it('refuses statistics of another network', async () => {
    await expect(readStatistics(await saved(statisticsTensors({ pooled })), 'test.npz', { dimension: 2048 })).rejects.toThrow('expected [2048] and [2048, 2048]');
  });
});

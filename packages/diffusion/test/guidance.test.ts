import '@tensorflow/tfjs-backend-cpu';
import { ArgumentError } from '@tinyfusion/core';
import { type Denoiser, classifierFreeGuidance } from '@tinyfusion/diffusion';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { useCpu } from './toy.js';

beforeAll(useCpu);

/** Puts out 10 in every channel for conditioned rows and 1 for the others, twice the channels of x. */
const model: Denoiser = (x) =>
  tf.tidy(() => {
    const n = x.shape[0]! / 2;
    const rest = [...x.shape.slice(1, -1), 2 * x.shape.at(-1)!];
    return tf.concat([tf.fill([n, ...rest], 10), tf.ones([n, ...rest])], 0);
  });
const run = async (guided: Denoiser, shape: number[]) => {
  const [x, t] = [tf.zeros(shape), tf.zeros([shape[0]!]) as tf.Tensor1D];
  const before = tf.memory().numTensors;
  const out = guided(x, t);
  expect(tf.memory().numTensors).toBe(before + 1);
  return { shape: out.shape, values: [...(await out.data())] };
};

describe('classifierFreeGuidance', () => {
  it('guides three channels as the reference does, and leaves the conditioned rest', async () => {
    // 1 + 2·(10 − 1) = 19
    const { values, shape } = await run(classifierFreeGuidance(model, { scale: 2 }), [1, 1, 1, 4]);
    expect(shape).toEqual([1, 1, 1, 8]);
    expect(values).toEqual([19, 19, 19, 10, 10, 10, 10, 10]);
  });

  it('guides all channels of the data, but not the variance', async () => {
    expect((await run(classifierFreeGuidance(model, { scale: 2, channels: 'all' }), [1, 1, 1, 4])).values).toEqual([19, 19, 19, 19, 10, 10, 10, 10]);
  });

  it('guides variance channels too where the data has fewer than three, as the reference does', async () => {
    expect((await run(classifierFreeGuidance(model, { scale: 2 }), [1, 1, 1, 1])).values).toEqual([19, 19]);
    expect((await run(classifierFreeGuidance(model, { scale: 2 }), [1, 1, 1, 2])).values).toEqual([19, 19, 19, 10]);
  });

  it('works on any rank from two', async () => {
    for (const shape of [[2, 3], [2, 5, 3], [2, 2, 2, 2, 3]]) {
      const out = await run(classifierFreeGuidance(model, { scale: 0, channels: 'all' }), shape);
      expect(out.shape).toEqual([...shape.slice(0, -1), 6]);
      expect(out.values.slice(0, 6)).toEqual([1, 1, 1, 10, 10, 10]);
    }
  });

  it('of scale 1 is the conditioned model', async () => {
    expect(new Set((await run(classifierFreeGuidance(model, { scale: 1 }), [3, 4])).values)).toEqual(new Set([10]));
  });

  it('runs the model once, over the batch twice', () => {
    const seen: number[][] = [];
    const guided = classifierFreeGuidance((x, t) => {
      seen.push([...x.shape], [...t.arraySync()]);
      return model(x, t);
    }, { scale: 3 });
    guided(tf.zeros([2, 4]), tf.tensor1d([5, 9]));
    expect(seen).toEqual([[4, 4], [5, 9, 5, 9]]);
  });

  it('refuses options that mean nothing', () => {
    expect(() => classifierFreeGuidance(model, { scale: NaN })).toThrow(ArgumentError);
    expect(() => classifierFreeGuidance(model, { scale: 2, channels: 0 })).toThrow(ArgumentError);
    expect(() => classifierFreeGuidance(model, { scale: 2, channels: 1.5 })).toThrow(/positive integer or 'all'/);
  });
});

import '@tensorflow/tfjs-backend-cpu';
import { ShapeError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';
import { packedLinear, unpackWeight } from '../src/index.js';

it('reads float16, bytes and half bytes as they are defined', async () => {
  await tf.setBackend('cpu');
  const words = (...list: number[]) => tf.tensor2d(Int32Array.from(list, (w) => w | 0), [1, list.length], 'int32');
  const halves = unpackWeight({ dtype: 'F16', inFeatures: 7, words: words(0xc000_3c00, 0x7bff_0001, 0x83ff_0400, 0x0000_8000) });
  expect(Array.from(await halves.data())).toEqual([1, -2, 2 ** -24, 65504, 2 ** -14, -1023 * 2 ** -24, -0]);
  const bytes = unpackWeight({ dtype: 'I8', inFeatures: 5, words: words(0x80ff_7f01, 0xfe), scale: tf.tensor1d([0.5]) });
  expect(Array.from(await bytes.data())).toEqual([0.5, 63.5, -0.5, -64, -1]);
  const nibbles = unpackWeight({ dtype: 'I4', inFeatures: 34, words: words(0x80ff_7f01, 0, 0, 0, 0xe9), scale: tf.tensor2d([[0.5, 2]]) });
  expect(Array.from(await nibbles.data())).toEqual([0.5, 0, -0.5, 3.5, -0.5, -0.5, 0, -4, ...Array.from({ length: 24 }, () => 0), -14, -4]);
});

it('refuses what does not fit', () => {
  const words = tf.zeros<tf.Rank.R2>([2, 2], 'int32');
  expect(() => packedLinear(tf.zeros([1, 5]), { dtype: 'F16', inFeatures: 5, words })).toThrow(ShapeError);
  expect(() => unpackWeight({ dtype: 'I8', inFeatures: 8, words })).toThrow('no scale');
  expect(() => packedLinear(tf.zeros([1, 3]), { dtype: 'F16', inFeatures: 4, words })).toThrow(ShapeError);
});

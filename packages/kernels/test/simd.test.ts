import '@tensorflow/tfjs-backend-wasm';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { linear } from '../src/index.js';
import { hasRelaxedSimd } from '../src/relaxed-simd.js';
import { installWasmKernels } from '../src/wasm.js';
import { expectAgreement } from './agreement.js';
import { type Case, cases } from './cases.js';

const product = (m: number, n: number, k: number, ta: boolean, tb: boolean): Case => ({ name: `matMul ${m}×${n}×${k} ${ta} ${tb}`, shapes: [ta ? [k, m] : [m, k], tb ? [n, k] : [k, n]], run: ([a, b]) => tf.matMul(a as tf.Tensor2D, b as tf.Tensor2D, ta, tb) });

/** Products that need more than one block along each axis, and products with few rows. */
const large: Case[] = [
  ...[true, false].flatMap((ta) => [true, false].map((tb) => product(70, 523, 401, ta, tb))),
  product(3, 9, 1203, false, true),
  ...[1, 2, 5, 16, 17].map((m): Case => ({ name: `linear of ${m} rows`, shapes: [[m, 67], [13, 67], [13]], run: ([x, w, b]) => linear(x!, w as tf.Tensor2D, b as tf.Tensor1D) })),
];

describe('kernels without relaxed SIMD', () => {
  beforeAll(async () => {
    await tf.setBackend('wasm');
    await installWasmKernels({ relaxedSimd: false });
  });

  for (const one of [...cases, ...large]) it(one.name, () => expectAgreement(one, 'wasm'));

  it('copy nothing for a clone', async () => {
    await tf.setBackend('wasm');
    const x = tf.tensor1d([1, 2, 3]);
    const buffers = tf.memory().numDataBuffers;
    const copy = tf.clone(x);
    expect(tf.memory().numDataBuffers).toBe(buffers);
    x.dispose();
    expect(Array.from(await copy.data())).toEqual([1, 2, 3]);
  });
});

it('this engine has relaxed SIMD, so that both kinds of kernels are tested', () => {
  expect(hasRelaxedSimd()).toBe(true);
});

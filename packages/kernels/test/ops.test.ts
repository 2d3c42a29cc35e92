import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { useBackend } from '../src/index.js';
import { expectAgreement } from './agreement.js';
import { cases, draw } from './cases.js';

describe('kernels on wasm agree with the reference on cpu, value and gradient', () => {
  beforeAll(async () => {
    await useBackend({ prefer: 'wasm' });
  });

  for (const one of cases) {
    it(one.name, async () => {
      await expectAgreement(one, 'wasm');
    });
  }

  it('broadcasts batches of products', async () => {
    // the value alone, against products one by one: tfjs's cpu kernel and its gradient are wrong where both sides broadcast
    await tf.setBackend('wasm');
    const [a, b] = [tf.tensor(draw([2, 1, 5, 6]), [2, 1, 5, 6]), tf.tensor(draw([3, 6, 4]), [3, 6, 4])];
    const got = tf.matMul(a, b);
    expect(got.shape).toEqual([2, 3, 5, 4]);
    for (let i = 0; i < 2; i++) {
      for (let j = 0; j < 3; j++) {
        const one = tf.matMul(tf.reshape(tf.slice(a, [i, 0, 0, 0], [1, 1, 5, 6]), [5, 6]), tf.reshape(tf.slice(b, [j, 0, 0], [1, 6, 4]), [6, 4]));
        const same = tf.reshape(tf.slice(got, [i, j, 0, 0], [1, 1, 5, 4]), [5, 4]);
        expect(Array.from(await same.data())).toEqual(Array.from(await one.data()));
      }
    }
  });

  it('leaves no tensor behind', async () => {
    await tf.setBackend('wasm');
    for (const one of cases) {
      const inputs = one.shapes.map((shape) => tf.tensor(draw(shape), shape));
      const once = () => tf.dispose(tf.grads((...x: tf.Tensor[]) => tf.sum(one.run(x)))(inputs));
      once();
      const before = tf.memory().numTensors;
      for (let i = 0; i < 5; i++) once();
      expect(tf.memory().numTensors, one.name).toBe(before);
    }
  });
});

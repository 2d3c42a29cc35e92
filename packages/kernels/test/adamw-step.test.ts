import '@tensorflow/tfjs-backend-cpu';
import { createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { adamWStep, useBackend } from '../src/index.js';

const numbers = { lr: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 };

describe('an AdamW step in place', () => {
  beforeAll(() => useBackend({ prefer: 'wasm' }));

  /** Three steps of a variable whose first value was cloned. */
  async function steps(backend: string): Promise<{ value: number[]; before: number[] }> {
    await tf.setBackend(backend);
    const rng = createRng(3);
    const parameter = tf.variable(tf.tensor2d(rng.normal(15), [3, 5]) as tf.Tensor);
    const before = tf.clone(parameter as tf.Tensor);
    let [m, v]: tf.Tensor[] = [tf.zeros([3, 5]), tf.zeros([3, 5])];
    for (let step = 1; step <= 3; step++) {
      const gradient = tf.tensor2d(rng.normal(15), [3, 5]);
      const next = adamWStep({ parameter, gradient, m: m!, v: v! }, { ...numbers, step, inPlace: true });
      tf.dispose([m!, v!, gradient]);
      [m, v] = [next.m, next.v];
      parameter.assign(next.parameter);
      next.parameter.dispose();
    }
    return { value: Array.from(await parameter.data()), before: Array.from(await before.data()) };
  }

  it('gives what a step elsewhere gives, and leaves clones as they were', async () => {
    const [expected, got] = [await steps('cpu'), await steps('wasm')];
    expect(got.before).toEqual(expected.before);
    for (const [i, value] of expected.value.entries()) expect(got.value[i]).toBeCloseTo(value, 5);
  });

  it('writes over what nobody else has', async () => {
    await tf.setBackend('wasm');
    const [parameter, gradient, m, v] = [0, 1, 2, 3].map((value) => tf.fill([2, 2], value));
    const buffers = tf.memory().numDataBuffers;
    const next = adamWStep({ parameter: parameter!, gradient: gradient!, m: m!, v: v! }, { ...numbers, step: 1, inPlace: true });
    expect(tf.memory().numDataBuffers).toBe(buffers);
    expect(next.m.dataId).toBe(m!.dataId);
    const shared = tf.clone(next.parameter);
    const after = adamWStep({ parameter: next.parameter, gradient: gradient!, m: next.m, v: next.v }, { ...numbers, step: 2, inPlace: true });
    expect(after.parameter.dataId).not.toBe(shared.dataId);
  });
});

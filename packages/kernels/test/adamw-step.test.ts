import '@tensorflow/tfjs-backend-cpu';
import { createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { adamWStep, useBackend } from '../src/index.js';

const numbers = { lr: 0.1, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.01 };

describe('an AdamW step', () => {
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
      const next = adamWStep({ parameter, gradient, m: m!, v: v! }, { ...numbers, step });
      tf.dispose([m!, v!, gradient]);
      [m, v] = [next.m, next.v];
      parameter.assign(next.parameter);
      next.parameter.dispose();
    }
    return { value: Array.from(await parameter.data()), before: Array.from(await before.data()) };
  }

  it('gives what the reference gives, and leaves clones as they were', async () => {
    const [expected, got] = [await steps('cpu'), await steps('wasm')];
    expect(got.before).toEqual(expected.before);
    for (const [i, value] of expected.value.entries()) expect(got.value[i]).toBeCloseTo(value, 5);
  });

  it('has data of their own, by whose id a change is seen', async () => {
    await tf.setBackend('wasm');
    const [parameter, gradient, m, v] = [0, 1, 2, 3].map((value) => tf.fill([2, 2], value));
    const next = adamWStep({ parameter: parameter!, gradient: gradient!, m: m!, v: v! }, { ...numbers, step: 1 });
    for (const [now, before] of [[next.parameter, parameter], [next.m, m], [next.v, v]] as const) expect(now.dataId).not.toBe(before!.dataId);
    expect(Array.from(await parameter!.data())).toEqual([0, 0, 0, 0]);
  });
});

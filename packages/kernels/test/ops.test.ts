import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { conv2d, gelu, sumOfSquares, useBackend } from '../src/index.js';
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

  it('take integers and booleans for the numbers that they are, as the references do', async () => {
    for (const one of cases) {
      if (/^(matMul|embedding|unpackWeight)/.test(one.name)) continue; // tfjs's own, and one whose floats are not its inputs
      const values = one.shapes.map((shape) => draw(shape).map((v) => Math.round(3 * v)));
      const results: Float32Array[] = [];
      for (const [backend, dtype] of [['cpu', 'float32'], ['cpu', 'int32'], ['wasm', 'int32']] as const) {
        await tf.setBackend(backend);
        // of several inputs one alone may be of integers too
        const inputs = values.map((v, i) => tf.tensor(v, one.shapes[i]!, i % 2 === 0 ? dtype : 'float32'));
        const before = tf.memory().numTensors;
        const y = tf.tidy(() => one.run(inputs));
        expect(tf.memory().numTensors, one.name).toBe(before + 1);
        expect(y.dtype, `${one.name} on ${backend}`).toBe('float32');
        results.push((await y.data()) as Float32Array);
        tf.dispose([y, ...inputs]);
      }
      const [floats, ...others] = results as [Float32Array, ...Float32Array[]];
      const largest = floats.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-6);
      for (const other of others) expect(Math.max(...floats.map((v, i) => Math.abs(v - other[i]!))) / largest, one.name).toBeLessThan(1e-5);
    }
    await tf.setBackend('wasm');
    expect([...(await gelu(tf.tensor1d([true, false], 'bool')).data())]).toEqual([...(await gelu(tf.tensor1d([1, 0])).data())]);
    expect(await tf.grad((x) => tf.sum(gelu(x)))(tf.tensor1d([1, 2], 'int32')).data()).toEqual(await tf.grad((x) => tf.sum(gelu(x)))(tf.tensor1d([1, 2])).data());
    expect((await sumOfSquares(tf.tensor1d([1, 2, -3], 'int32')).data())[0]).toBe(14);
    expect(() => tf.engine().runKernel('TinyFusionGelu', { x: tf.tensor1d([1], 'int32') })).toThrow('a kernel on wasm reads float32 values, got int32 as x; cast it first');
  });

  it('refuse padding that is none', () => {
    for (const padding of [-1, 0.5, Number.NaN]) expect(() => conv2d(tf.ones([1, 4, 4, 1]), tf.ones([1, 1, 1, 1]), undefined, { padding })).toThrow(`conv2d: padding is ${padding}, expected integers from 0`);
  });

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

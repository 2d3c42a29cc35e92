import '@tensorflow/tfjs-backend-cpu';
import { createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { type AdamWOutputs, adamWStep, gatedAdd, gelu, linear, philoxNormal, sumOfSquares, sumOfSquaresOfAll, useBackend } from '../src/index.js';
import { type Case, cases, draw, drawnCases, evaluate } from './cases.js';

describe('operations on webgpu agree with those on cpu, value and gradient', () => {
  beforeAll(async () => {
    await useBackend({ prefer: 'webgpu' });
    const { device } = tf.backend() as unknown as { device: GPUDevice };
    // tfjs computes zeros where a shader or a buffer is invalid, and says so only here
    device.addEventListener('uncapturederror', (event) => {
      throw new Error(event.error.message);
    });
  });

  async function expectAgreement(one: Case): Promise<void> {
    const values = one.shapes.map(draw);
    await tf.setBackend('cpu');
    const expected = await evaluate(one, values);
    await tf.setBackend('webgpu');
    const got = await evaluate(one, values);
    for (const [i, reference] of expected.entries()) {
      const largest = reference.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      const worst = reference.reduce((a, b, j) => Math.max(a, Math.abs(b - got[i]![j]!)), 0);
      expect(worst / (largest + 1e-6), `${one.name}: ${i === 0 ? 'value' : `gradient ${i - 1}`}`).toBeLessThan(2e-5);
    }
  }

  for (const one of [...cases, ...drawnCases]) it(one.name, () => expectAgreement(one));

  it('take integers for the numbers that they are', async () => {
    const [x, w] = [tf.tensor2d([[1, 2], [-3, 4]], [2, 2], 'int32'), tf.tensor2d([[3, 4], [5, 6]])];
    expect(Array.from(await linear(x, w).data())).toEqual([11, 17, 7, 9]);
    expect(Array.from(await gelu(x).data())).toEqual(Array.from(await gelu(tf.tensor2d([[1, 2], [-3, 4]])).data()));
    expect(Array.from(await gatedAdd(tf.ones([1, 1, 2], 'int32'), tf.fill([1, 2], 2, 'int32'), tf.ones([1, 1, 2])).data())).toEqual([3, 3]);
  });

  it('multiplies with what a variable held when it was asked to, whatever is assigned before the product is computed', async () => {
    const x = tf.tensor2d([[1, 2]]);
    const weight = tf.variable(tf.tensor2d([[3, 4], [5, 6]]));
    const waiting = linear(x, weight as tf.Tensor as tf.Tensor2D);
    weight.assign(tf.tensor2d([[-1, 0], [0, -1]]));
    expect(Array.from(await waiting.data())).toEqual([11, 17]);
    expect(Array.from(await linear(x, weight as tf.Tensor as tf.Tensor2D).data())).toEqual([-1, -2]);
    weight.dispose();
  });

  it('steps parameters, moments and averages of many sizes in one pass as the composition does, and leaves what is shared', async () => {
    const shapes = [[3], [7, 5], [1], [2000], [4, 4], [9]];
    const values = shapes.map((shape) => [draw(shape), draw(shape), draw(shape), draw(shape).map(Math.abs), draw(shape)]);
    const numbers = { lr: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, step: 2, gradientScale: 0.5, averageDecay: 0.75 };
    const once = async (): Promise<number[][]> => {
      const [first] = values;
      const shared = tf.tensor(first![0]!, shapes[0]!);
      const outputs = shapes.map((shape, i): AdamWOutputs => {
        const [parameter, gradient, m, v, average] = values[i]!.map((list) => tf.tensor(list, shape));
        const own = i === 0 ? tf.clone(shared) : parameter!;
        const out = adamWStep({ parameter: own, gradient: gradient!, m: m!, v: v!, ...(i === 4 ? {} : { average: average! }) }, numbers);
        tf.dispose([own, m!, v!, average!]);
        return out;
      });
      const all = outputs.flatMap(({ parameter, m, v, average }) => [parameter, m, v, ...(average === undefined ? [] : [average])]);
      const lists = await Promise.all(all.map(async (out) => Array.from(await out.data())));
      expect(Array.from(await shared.data())).toEqual(Array.from(first![0]!));
      return lists;
    };
    await tf.setBackend('cpu');
    const expected = await once();
    await tf.setBackend('webgpu');
    const got = await once();
    expect(got.length).toBe(4 * 6 - 1);
    for (const [i, list] of expected.entries()) for (const [j, value] of list.entries()) expect(Math.abs(got[i]![j]! - value)).toBeLessThan(2e-6 * Math.max(1, Math.abs(value)));
  });

  it('adds and squares more tensors than a shader can bind', async () => {
    await tf.setBackend('webgpu');
    const lists = Array.from({ length: 40 }, (_, i) => draw([i + 1]));
    const expected = lists.reduce((sum, list) => sum + list.reduce((a, b) => a + b * b, 0), 0);
    const tensors = lists.map((list) => tf.tensor1d(list));
    expect(Math.abs((await sumOfSquaresOfAll(tensors).data())[0]! / expected - 1)).toBeLessThan(1e-5);
    expect(Math.abs((await sumOfSquares(tensors[39]!).data())[0]! / lists[39]!.reduce((a, b) => a + b * b, 0) - 1)).toBeLessThan(1e-5);
    const sum = await tf.addN(Array.from({ length: 30 }, (_, i) => tf.tensor1d([i, 2 * i, 1]))).data();
    expect(Array.from(sum)).toEqual([435, 870, 30]);
  });

  it.each([1, 4, 1001])('draws the %i normals of a seed', async (count) => {
    await tf.setBackend('webgpu');
    const [here, there] = [createRng({ kind: 'philox4x32', key: [0xdeadbeef, 7], counter: 2 ** 32 - 3 }), createRng({ kind: 'philox4x32', key: [0xdeadbeef, 7], counter: 2 ** 32 - 3 })];
    const expected = there.normal(count);
    const got = await philoxNormal(here, [count]).data();
    expect(here.state()).toEqual(there.state());
    for (const [i, value] of expected.entries()) expect(Math.abs(got[i]! - value)).toBeLessThan(1e-6 * Math.max(1, Math.abs(value)));
  });
});

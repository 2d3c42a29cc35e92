import { useBackend, valuesOnHeap } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';

it('are the values themselves on WASM, and nothing for other types, other backends, or tensors of those', async () => {
  await useBackend({ prefer: 'cpu' });
  const elsewhere = tf.tensor1d([1, 2]);
  expect(valuesOnHeap(elsewhere)).toBeUndefined();
  await useBackend({ prefer: 'wasm' });
  const matrix = tf.tensor2d([1, 2, 3, 4, 5, 6], [2, 3]);
  expect([...valuesOnHeap(matrix)!]).toEqual([1, 2, 3, 4, 5, 6]);
  expect([...valuesOnHeap(tf.transpose(matrix))!]).toEqual([1, 4, 2, 5, 3, 6]);
  valuesOnHeap(matrix)![5] = 7; // no copy
  expect([...(await matrix.data())]).toEqual([1, 2, 3, 4, 5, 7]);
  expect(valuesOnHeap(tf.tensor1d([1], 'int32'))).toBeUndefined();
  expect(valuesOnHeap(elsewhere), 'made on another backend').toBeUndefined();
});

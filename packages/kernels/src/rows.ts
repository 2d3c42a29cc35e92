import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { axes } from './shape.js';

/**
 * Some rows of a matrix. Unlike `tf.gather` its gradient is a gather too, which every backend has: no row is taken twice.
 *
 * @param x `[R, D]`
 * @param indices different integers from 0 to R − 1
 * @returns `[indices.length, D]`
 * @throws ArgumentError where an index is out of range or comes twice
 */
export function takeRows(x: tf.Tensor2D, indices: Int32Array): tf.Tensor2D {
  const { R, D } = axes('takeRows: x', x, 'R D');
  const source = inverse('takeRows: indices', indices, R);
  const take = tf.customGrad((rows) => ({
    value: tf.gather(rows as tf.Tensor2D, tf.tensor1d(indices, 'int32')),
    gradFunc: (dy: tf.Tensor) => [tf.tidy(() => place(dy as tf.Tensor2D, tf.zeros([1, D]), source))],
  }));
  return tf.tidy(() => take(x) as tf.Tensor2D);
}

/**
 * A matrix with `rows` at some places and one row, `fill`, at all others: the inverse of {@link takeRows}.
 *
 * @param rows `[K, D]`
 * @param fill `[1, D]`
 * @param indices K different integers from 0 to count − 1
 * @param count rows of the result
 * @returns `[count, D]`
 * @throws ArgumentError where an index is out of range or comes twice
 */
export function placeRows(rows: tf.Tensor2D, fill: tf.Tensor2D, indices: Int32Array, count: number): tf.Tensor2D {
  const { D } = axes('placeRows: rows', rows, 'K D', { K: indices.length });
  axes('placeRows: fill', fill, 'O D', { O: 1, D });
  const source = inverse('placeRows: indices', indices, count);
  const others = Int32Array.from({ length: count }, (_, i) => i).filter((i) => source[i] === indices.length);
  const put = tf.customGrad((given, filler) => ({
    value: place(given as tf.Tensor2D, filler as tf.Tensor2D, source),
    gradFunc: (dy: tf.Tensor) =>
      [
        tf.gather(dy as tf.Tensor2D, tf.tensor1d(indices, 'int32')),
        others.length === 0 ? tf.zeros([1, D]) : tf.sum(tf.gather(dy as tf.Tensor2D, tf.tensor1d(others, 'int32')), 0, true),
      ] as unknown as tf.Tensor,
  }));
  return tf.tidy(() => put(rows, fill) as tf.Tensor2D);
}

/** Rows by their place in `rows` with `fill` after them. */
function place(rows: tf.Tensor2D, fill: tf.Tensor2D, source: Int32Array): tf.Tensor2D {
  return tf.gather(tf.concat([rows, fill], 0), tf.tensor1d(source, 'int32'));
}

/** For each of `count` rows its place in `indices`, or `indices.length` where it is not there. */
function inverse(name: string, indices: Int32Array, count: number): Int32Array {
  const source = new Int32Array(count).fill(indices.length);
  for (const [k, i] of indices.entries()) {
    if (!(i >= 0 && i < count)) throw new ArgumentError(name, i, `integers from 0 to ${count - 1}`);
    if (source[i] !== indices.length) throw new ArgumentError(name, i, 'different integers; this one comes twice');
    source[i] = k;
  }
  return source;
}

import type * as tf from '@tensorflow/tfjs-core';
import { PendingSilu } from './activation.js';
import type { Call, Kernel } from './call.js';
import { sizeOf } from './call.js';
import type { Gpu } from './gpu.js';
import { type PackedBits, matrix, packedMatrix } from './operands.js';
import { ColumnSums, Product } from './product.js';

/** Rows up to which an activation is computed again in each tile that reads it. */
const FEW_ROWS = 64;

/** x, or what a waiting activation of few rows is of. */
function source(gpu: Gpu, x: tf.TensorInfo, rows: number): { info: tf.TensorInfo; activation?: 'silu' } {
  const waiting = gpu.pending.get(x.dataId);
  return waiting instanceof PendingSilu && rows <= FEW_ROWS ? { info: waiting.x, activation: 'silu' } : { info: x };
}

/** x Wᵀ + b, `[R, I]` by `[O, I]`. */
export const linear: Kernel = (call) => {
  const [m, k] = call.shape('x') as [number, number];
  const [n] = call.shape('weight') as [number];
  if (m * n * k === 0) return call.output([m, n]).info;
  const { info, activation } = source(call.gpu, call.info('x'), m);
  const a = matrix(info, { outer: m, inner: k, summedInside: true, activation });
  const b = matrix(call.info('weight'), { outer: n, inner: k, summedInside: true });
  return new Product(call.gpu, { m, n, k, a, b, bias: call.inputs['bias'] }).start([m, n]);
};

/** The same with a packed weight, expanded as it is loaded. */
export const packedLinear: Kernel = (call) => {
  const [m, k] = call.shape('x') as [number, number];
  const [n] = call.shape('words') as [number];
  if (m * n * k === 0) return call.output([m, n]).info;
  const { info, activation } = source(call.gpu, call.info('x'), m);
  const a = matrix(info, { outer: m, inner: k, summedInside: true, activation });
  const b = packedMatrix(call.info('words'), call.inputs['scale'], { bits: call.number('bits') as PackedBits, outer: n, inner: k });
  return new Product(call.gpu, { m, n, k, a, b, bias: call.inputs['bias'] }).start([m, n]);
};

/** Sums over rows. */
export const sumRows: Kernel = (call) => {
  const [rows, width] = call.shape('x') as [number, number];
  return rows * width === 0 ? call.output([width]).info : new ColumnSums(call.gpu, call.info('x')).start();
};

/**
 * `tf.matMul`, where both are float32 and batches are equal or one of them is 1. Products of two matrices wait; those
 * with the same first operand, as the gradients of a linear layer are, run together.
 * @returns `undefined` where tfjs's kernel has to do it
 */
export function matMul(call: Call): tf.TensorInfo | undefined {
  const [x, y] = [call.info('a'), call.info('b')];
  const [transposeA, transposeB] = [Boolean(call.attributes['transposeA']), Boolean(call.attributes['transposeB'])];
  const [rowsA, columnsA] = x.shape.slice(-2) as [number, number];
  const [rowsB, columnsB] = y.shape.slice(-2) as [number, number];
  const [m, k, n] = [transposeA ? columnsA : rowsA, transposeA ? rowsA : columnsA, transposeB ? rowsB : columnsB];
  const [outerA, outerB] = [x.shape.slice(0, -2), y.shape.slice(0, -2)];
  const [batchA, batchB] = [sizeOf(outerA), sizeOf(outerB)];
  const outer = batchA > batchB || (batchA === batchB && outerA.length > outerB.length) ? outerA : outerB;
  const batch = sizeOf(outer);
  const same = outerA.length === outerB.length && outerA.every((size, i) => size === outerB[i]);
  const fits = same || (Math.min(batchA, batchB) === 1 && outer.length >= outerA.length && outer.length >= outerB.length);
  if (x.dtype !== 'float32' || y.dtype !== 'float32' || !fits || batch * m * n * k === 0 || batch > call.gpu.device.limits.maxComputeWorkgroupsPerDimension) return undefined;
  const rows = batch === 1 ? (transposeA ? k : m) : Infinity;
  const [left, right] = [source(call.gpu, x, rows), source(call.gpu, y, batch === 1 ? rowsB : Infinity)];
  const a = matrix(left.info, { outer: rowsA, inner: columnsA, summedInside: !transposeA, batchStride: batchA === 1 ? 0 : m * k, activation: left.activation });
  const b = matrix(right.info, { outer: rowsB, inner: columnsB, summedInside: transposeB, batchStride: batchB === 1 ? 0 : k * n, activation: right.activation });
  const shared = batch === 1 && !transposeB ? { gradient: x.dataId, withColumnSums: transposeA } : {};
  return new Product(call.gpu, { m, n, k, batch, a, b, ...shared }).start([...outer, m, n]);
}

// Operations with random inputs of even and odd shapes, for comparing backends.
import { createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { attention, conv2d, embedding, gatedAdd, gelu, groupNorm, layerNorm, linear, modulatedNorm, packedLinear, type PackedDtype, scaleShape, selfAttention, silu, unpackWeight, wordsPerRow } from '../src/index.js';

const rng = createRng(1);
export const draw = (shape: number[]): Float32Array => rng.normal(shape.reduce((a, b) => a * b, 1));

/** An operation with the shapes of its inputs; the cpu backend has no kernels of ours, so there it is the reference. */
export interface Case {
  name: string;
  shapes: number[][];
  run(inputs: tf.Tensor[]): tf.Tensor;
}

/** A packed weight of random bits; float16's are finite. */
function packed(outputs: number, inFeatures: number, dtype: PackedDtype) {
  const size = outputs * wordsPerRow(inFeatures, dtype);
  const bits = Int32Array.from(rng.integers(0, 2 ** 31, size), (word, i) => ((i % 2 === 0 ? word : ~word) & (dtype === 'F16' ? 0xbfff_bfff : -1)) | 0);
  const shape = scaleShape(outputs, inFeatures, dtype);
  const scale = shape === undefined ? undefined : rng.uniform(shape.reduce((a, b) => a * b, 1));
  return () => ({ dtype, inFeatures, words: tf.tensor2d(bits, [outputs, size / outputs], 'int32'), ...(scale === undefined ? {} : { scale: tf.tensor(scale, shape) }) });
}

const packings = ([['F16', 7, 5, 3], ['F16', 33, 9, 401], ['F16', 4, 70, 40], ['I8', 7, 5, 3], ['I8', 33, 9, 401], ['I8', 20, 70, 40], ['I4', 7, 5, 3], ['I4', 33, 9, 401], ['I4', 20, 70, 72]] as const).flatMap(([dtype, m, n, k]): Case[] => {
  const weight = packed(n, k, dtype);
  return [
    { name: `packedLinear ${dtype} ${m}×${n}×${k}`, shapes: [[m, k], [n]], run: ([x, b]) => packedLinear(x!, weight(), b as tf.Tensor1D) },
    { name: `unpackWeight ${dtype} ${n}×${k}`, shapes: [[n, k]], run: ([x]) => tf.mul(x!, unpackWeight(weight())) },
  ];
});

const t4 = (x: tf.Tensor) => x as tf.Tensor4D;
export const cases: Case[] = [
  ...packings,
  ...[[7, 5, 3], [16, 16, 32], [33, 9, 13], [4, 8, 400]].map(([m, n, k]) => ({ name: `linear ${m}×${n}×${k}`, shapes: [[m!, k!], [n!, k!], [n!]], run: ([x, w, b]: tf.Tensor[]) => linear(x!, w as tf.Tensor2D, b as tf.Tensor1D) })),
  { name: 'linear of rank 3 without bias', shapes: [[2, 3, 5], [7, 5]], run: ([x, w]) => linear(x!, w as tf.Tensor2D) },
  ...[[2, 3, 5, 6], [1, 2, 16, 8]].map(([n, h, t, d]) => ({ name: `attention ${n}×${h}×${t}×${d}`, shapes: [[n!, h!, t!, d!], [n!, h!, t! + 2, d!], [n!, h!, t! + 2, d!]], run: ([q, k, v]: tf.Tensor[]) => attention(t4(q!), t4(k!), t4(v!)) })),
  { name: 'selfAttention', shapes: [[3, 7, 36]], run: ([qkv]) => selfAttention(qkv as tf.Tensor3D, { numHeads: 2 }) },
  { name: 'selfAttention, even', shapes: [[2, 16, 96]], run: ([qkv]) => selfAttention(qkv as tf.Tensor3D, { numHeads: 4 }) },
  { name: 'modulatedNorm', shapes: [[2, 3, 7], [2, 7], [2, 7]], run: ([x, a, b]) => modulatedNorm(x as tf.Tensor3D, a as tf.Tensor2D, b as tf.Tensor2D) },
  { name: 'modulatedNorm, even', shapes: [[3, 4, 16], [3, 16], [3, 16]], run: ([x, a, b]) => modulatedNorm(x as tf.Tensor3D, a as tf.Tensor2D, b as tf.Tensor2D) },
  { name: 'layerNorm', shapes: [[5, 10], [10], [10]], run: ([x, w, b]) => layerNorm(x!, w as tf.Tensor1D, b as tf.Tensor1D) },
  { name: 'layerNorm without weights', shapes: [[2, 3, 9]], run: ([x]) => layerNorm(x!) },
  { name: 'gatedAdd', shapes: [[2, 3, 7], [2, 7], [2, 3, 7]], run: ([x, g, y]) => gatedAdd(x as tf.Tensor3D, g as tf.Tensor2D, y as tf.Tensor3D) },
  { name: 'gelu', shapes: [[3, 7]], run: ([x]) => gelu(tf.mul(x!, 3)) },
  { name: 'silu', shapes: [[13]], run: ([x]) => silu(tf.mul(x!, 3)) },
  { name: 'groupNorm', shapes: [[2, 3, 5, 12], [12], [12]], run: ([x, w, b]) => groupNorm(t4(x!), w as tf.Tensor1D, b as tf.Tensor1D, { groups: 4 }) },
  { name: 'groupNorm of odd width', shapes: [[2, 4, 3, 6], [6], [6]], run: ([x, w, b]) => groupNorm(t4(x!), w as tf.Tensor1D, b as tf.Tensor1D, { groups: 2 }) },
  { name: 'conv2d 3×3', shapes: [[2, 6, 5, 3], [4, 3, 3, 3], [4]], run: ([x, w, b]) => conv2d(t4(x!), t4(w!), b as tf.Tensor1D, { padding: 1 }) },
  { name: 'conv2d strided, padded below and right', shapes: [[2, 6, 6, 5], [7, 5, 3, 3], [7]], run: ([x, w, b]) => conv2d(t4(x!), t4(w!), b as tf.Tensor1D, { stride: 2, padding: [[0, 1], [0, 1]] }) },
  { name: 'conv2d 1×1', shapes: [[2, 3, 3, 5], [6, 5, 1, 1]], run: ([x, w]) => conv2d(t4(x!), t4(w!)) },
  { name: 'conv2d patches', shapes: [[2, 4, 4, 4], [8, 4, 2, 2], [8]], run: ([x, w, b]) => conv2d(t4(x!), t4(w!), b as tf.Tensor1D, { stride: 2 }) },
  { name: 'embedding', shapes: [[5, 3]], run: ([table]) => embedding(table as tf.Tensor2D, tf.tensor1d([4, 0, 4, 2], 'int32')) },
  ...[[false, false], [false, true], [true, false], [true, true]].map(([ta, tb]) => ({ name: `matMul batched ${ta} ${tb}`, shapes: [ta ? [2, 3, 9, 7] : [2, 3, 7, 9], tb ? [2, 3, 10, 9] : [2, 3, 9, 10]], run: ([a, b]: tf.Tensor[]) => tf.matMul(a!, b!, ta, tb) })),
];

/** Sizes drawn anew for each operation, odd ones among them. */
const size = (most: number): number => 1 + rng.integers(0, most, 1)[0]!;

/** Every operation on shapes that nobody has chosen. */
export const drawnCases: Case[] = [1, 2].flatMap((round): Case[] => {
  const [n, h, t, d, m, k, o] = [size(3), size(3), size(40), size(20), size(70), size(90), size(70)];
  const [from, height, width, channels, outputs] = [size(30), 3 + size(6), 3 + size(6), size(5), size(5)];
  const named = (name: string, shapes: number[][], run: Case['run']): Case => ({ name: `${name} of ${shapes.map((shape) => shape.join('×')).join(', ')} (drawn ${round})`, shapes, run });
  return [
    named('linear', [[n, t, k], [o, k], [o]], ([x, w, b]) => linear(x!, w as tf.Tensor2D, b as tf.Tensor1D)),
    named('linear, gelu, linear, gated', [[n, t, d], [m, d], [m], [d, m], [n, d]], ([x, w, b, v, g]) => gatedAdd(x as tf.Tensor3D, g as tf.Tensor2D, linear(gelu(linear(x!, w as tf.Tensor2D, b as tf.Tensor1D)), v as tf.Tensor2D) as tf.Tensor3D)),
    named('attention', [[n, h, t, d], [n, h, from, d], [n, h, from, d]], ([q, key, v]) => attention(t4(q!), t4(key!), t4(v!))),
    named('selfAttention', [[n, t, 3 * h * d]], ([qkv]) => selfAttention(qkv as tf.Tensor3D, { numHeads: h })),
    named('modulatedNorm', [[n, t, 1 + k], [n, 1 + k], [n, 1 + k]], ([x, a, b]) => modulatedNorm(x as tf.Tensor3D, a as tf.Tensor2D, b as tf.Tensor2D)),
    named('layerNorm', [[n, t, 1 + o], [1 + o], [1 + o]], ([x, w, b]) => layerNorm(x!, w as tf.Tensor1D, b as tf.Tensor1D)),
    named('gatedAdd', [[n, t, m], [n, m], [n, t, m]], ([x, g, y]) => gatedAdd(x as tf.Tensor3D, g as tf.Tensor2D, y as tf.Tensor3D)),
    named('gelu', [[m, k]], ([x]) => gelu(x!)),
    named('silu', [[k, m]], ([x]) => silu(x!)),
    named('groupNorm', [[n, height, width, 3 * channels], [3 * channels], [3 * channels]], ([x, w, b]) => groupNorm(t4(x!), w as tf.Tensor1D, b as tf.Tensor1D, { groups: 3 })),
    named('conv2d', [[n, height, width, channels], [outputs, channels, 3, 3], [outputs]], ([x, w, b]) => conv2d(t4(x!), t4(w!), b as tf.Tensor1D, { padding: 1, stride: round })),
    named('embedding', [[3, k]], ([table]) => embedding(table as tf.Tensor2D, tf.tensor1d([2, 0, 2], 'int32'))),
    named('matMul', [[n, h, m, t], [n, h, t, o]], ([a, b]) => tf.matMul(a!, b!)),
  ];
});

/** Value and gradients by every input, of the sum of the output times fixed weights. */
export async function evaluate({ shapes, run }: Case, values: Float32Array[]): Promise<Float32Array[]> {
  const inputs = shapes.map((shape, i) => tf.tensor(values[i]!, shape));
  const y = run(inputs);
  const weights = tf.tensor(Float32Array.from({ length: y.size }, (_, i) => Math.sin(i + 1)), y.shape);
  const gradients = tf.grads((...x: tf.Tensor[]) => tf.sum(tf.mul(run(x), weights)))(inputs);
  return Promise.all([y, ...gradients].map(async (t) => Float32Array.from(await t.data())));
}


import { createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { useBackend } from '../src/index.js';
import { Gpu } from '../src/webgpu/gpu.js';
import { byMatrices, type subgroupMatrixWgsl } from '../src/webgpu/matrix-product.js';
import { matrix, packedMatrix } from '../src/webgpu/operands.js';
import type { Job } from '../src/webgpu/product-code.js';
import type { ProductForm } from '../src/webgpu/product-form.js';
import { runJobs } from '../src/webgpu/run-jobs.js';
import { tiledBySubgroups } from '../src/webgpu/subgroup-product.js';
import { thin, thinBySubgroups } from '../src/webgpu/thin-product.js';
import { tiled } from '../src/webgpu/tiled-product.js';
import { halves } from './halves.js';

const rng = createRng(3);
const draw = (size: number): Float32Array => rng.normal(size);
const gelu = (x: number): number => 0.5 * x * (1 + Math.tanh(0.7978845608 * (x + 0.044715 * x ** 3)));

/** Σₖ a(i, l) b(j, l) of arrays that are read by functions. */
const product = (m: number, n: number, k: number, a: (i: number, l: number) => number, b: (j: number, l: number) => number): number[] =>
  Array.from({ length: m * n }, (_, at) => Array.from({ length: k }, (__, l) => a(Math.floor(at / n), l) * b(at % n, l)).reduce((x, y) => x + y, 0));

/** float16 without the feature: its values in float32. */
const withoutHalf = (form: ProductForm): ProductForm => ({ ...form, directives: (form.directives ?? '').replace('enable f16;', ''), memory: `alias f16 = f32;\nalias vec4h = vec4f;\n${form.memory}` });

/** Subgroup matrices without the feature: each thread of a subgroup computes all of them. */
function emulated(type: 'f16' | 'f32', M: number, N: number, K: number, lanes: number): ProductForm {
  const wgsl: typeof subgroupMatrixWgsl = {
    directives: 'enable subgroups;',
    left: (_type, _config, from, at, stride) => `leftMatrix(&${from}, ${at}, ${stride}u)`,
    right: (_type, _config, from, at, stride) => `rightMatrix(&${from}, ${at}, ${stride}u)`,
    sum: () => `array<f32, ${M * N}>`,
    add: (a, b, sum) => `{ var l = ${a}; var r = ${b}; for (var i = 0u; i < ${M}u; i++) { for (var j = 0u; j < ${N}u; j++) { for (var k = 0u; k < ${K}u; k++) { ${sum}[i * ${N}u + j] += l[i * ${K}u + k] * r[j * ${K}u + k]; } } } }`,
    store: (_config, to, at, sum) => `for (var i = 0u; i < ${M * N}u; i++) { ${to}[${at} + i] = ${sum}[i]; }`,
  };
  const form = byMatrices({ componentType: type, resultComponentType: 'f32', M, N, K }, lanes, wgsl)!;
  const size = /tileA : array<\w+, (\d+)>/.exec(form.memory)![1]!;
  const load = (name: string, count: number): string => `
fn ${name}(tile : ptr<workgroup, array<f32, ${size}>>, at : u32, stride : u32) -> array<f32, ${count * K}> {
  var v : array<f32, ${count * K}>;
  for (var i = 0u; i < ${count}u; i++) { for (var k = 0u; k < ${K}u; k++) { v[i * ${K}u + k] = tile[at + i * stride + k]; } }
  return v;
}`;
  return withoutHalf({ ...form, memory: `${form.memory}${load('leftMatrix', M)}${load('rightMatrix', N)}` });
}

/** Subgroups of 16 threads at least where there are none so large: threads read each other's values from workgroup memory. */
function bySixteen(): ProductForm {
  const form = tiledBySubgroups(16);
  return {
    ...form,
    name: `${form.name} of 16`,
    memory: `${form.memory}
var<workgroup> exchange : array<vec4f, 256>;
fn exchanged(thread : u32, v : vec4f, other : u32) -> vec4f { exchange[thread] = v; workgroupBarrier(); let got = exchange[other]; workgroupBarrier(); return got; }`,
    code: (bound) => form.code(bound).replaceAll('= lane', '= thread').replaceAll('subgroupShuffle(', 'exchanged(thread, '),
  };
}

describe('each form of product agrees with the sums that it stands for', () => {
  let gpu: Gpu;
  beforeAll(async () => {
    await useBackend({ prefer: 'webgpu' });
    gpu = Gpu.of(tf.backend());
  });

  const output = (shape: number[]): { buffer: GPUBuffer; values(): Promise<number[]> } => {
    const info = gpu.output(shape);
    return { buffer: gpu.buffer(info), values: async () => Array.from((await gpu.backend.read(info.dataId)) as Float32Array) };
  };
  const expectClose = (got: readonly number[], expected: readonly number[]): void => {
    const largest = Math.max(...expected.map(Math.abs));
    expect(got.length).toBe(expected.length);
    expect(Math.max(...expected.map((v, i) => Math.abs(v - got[i]!))) / largest).toBeLessThan(1e-5);
    expect(largest).toBeGreaterThan(1);
  };

  const exact = [tiled(8, 4), tiled(8, 8), tiledBySubgroups(4), bySixteen(), emulated('f32', 8, 16, 8, 32)];
  it.each(exact.map((form) => [form.name, form] as const))('%s: odd sizes, transposed, several at once, with sums of rows', async (_, form) => {
    // as in the gradients of a linear layer: both read x [K, M], along one axis and the other
    const [m, k, n, o] = [70, 19, 133, 5];
    const [x, w, v, bias, more] = [draw(k * m), draw(k * n), draw(o * m), draw(n), draw(m * n)];
    const infoX = tf.tensor2d(x, [k, m]);
    const [first, second, sums] = [output([m, n]), output([k, o]), output([m])];
    const buffer = (values: Float32Array): GPUBuffer => gpu.buffer(tf.tensor1d(values));
    const own: Job = { m, n, k, batch: 1, a: matrix(infoX, { outer: k, inner: m, summedInside: false }), b: matrix(tf.tensor2d(w, [k, n]), { outer: k, inner: n, summedInside: false }), bias: buffer(bias), steps: [{ kind: 'gelu' }, { kind: 'add', x: () => buffer(more) }], outputs: [{ after: 2, buffer: first.buffer }] };
    const other: Job = { m: k, n: o, k: m, batch: 1, a: matrix(infoX, { outer: k, inner: m, summedInside: true }), b: matrix(tf.tensor2d(v, [o, m]), { outer: o, inner: m, summedInside: true }), steps: [], outputs: [{ after: 0, buffer: second.buffer }] };
    const withSums = { ...own, rowSums: sums.buffer };
    const takesSums = form.takes(withSums);
    runJobs(gpu, [takesSums ? withSums : own, other], form);
    expectClose(await first.values(), product(m, n, k, (i, l) => x[l * m + i]!, (j, l) => w[l * n + j]!).map((value, i) => gelu(value + bias[i % n]!) + more[i]!));
    expectClose(await second.values(), product(k, o, m, (i, l) => x[i * m + l]!, (j, l) => v[j * m + l]!));
    expect(takesSums).toBe(form.subgroups !== true);
    if (takesSums) expectClose(await sums.values(), product(m, 1, k, (i, l) => x[l * m + i]!, () => 1));
  });

  it.each(exact.map((form) => [form.name, form] as const))('%s: a batch, with gates', async (_, form) => {
    const [batch, m, n, k] = [2, 132, 72, 20];
    const [x, w, residual, gate] = [draw(batch * m * k), draw(batch * k * n), draw(batch * m * n), draw(2 * n)];
    const y = output([batch, m, n]);
    const buffers = [residual, gate].map((values) => gpu.buffer(tf.tensor1d(values)));
    const step = { kind: 'gate', x: () => buffers[0]!, gate: () => ({ buffer: buffers[1]!, offset: 0, stride: n }), rows: m / 2 } as const;
    const a = matrix(tf.tensor3d(x, [batch, m, k]), { outer: m, inner: k, summedInside: true, batchStride: m * k });
    const b = matrix(tf.tensor3d(w, [batch, k, n]), { outer: k, inner: n, summedInside: false, batchStride: k * n });
    runJobs(gpu, [{ m, n, k, batch, a, b, steps: [step], outputs: [{ after: 1, buffer: y.buffer }] }], form);
    const products = [0, 1].flatMap((i) => product(m, n, k, (r, l) => x[(i * m + r) * k + l]!, (c, l) => w[(i * k + l) * n + c]!));
    expectClose(await y.values(), products.map((value, i) => residual[i]! + gate[Math.floor((Math.floor(i / n) % m) / (m / 2)) * n + (i % n)]! * value));
  });

  // the layout of what needs float16, computed in float32
  it.each([withoutHalf(tiled(8, 8, { half: true })), emulated('f16', 16, 8, 16, 64)].map((form) => [form.name, form] as const))('%s: weights that are held so', async (_, form) => {
    const [m, n, k] = [67, 70, 37];
    const [x, bias] = [draw(m * k), draw(n)];
    const { words, values } = halves(n, k, 5);
    const y = output([m, n]);
    const job: Job = { m, n, k, batch: 1, a: matrix(tf.tensor2d(x, [m, k]), { outer: m, inner: k, summedInside: true }), b: packedMatrix(words, undefined, { bits: 16, outer: n, inner: k }), bias: gpu.buffer(tf.tensor1d(bias)), steps: [], outputs: [{ after: 0, buffer: y.buffer }] };
    expect(form.takes(job)).toBe(true);
    expect(form.takes({ ...job, b: matrix(tf.zeros([n, k]), { outer: n, inner: k, summedInside: true }) })).toBe(false);
    runJobs(gpu, [job], form);
    expectClose(await y.values(), product(m, n, k, (i, l) => x[i * k + l]!, (j, l) => values[j * k + l]!).map((value, i) => value + bias[i % n]!));
  });

  it.each([thin, thinBySubgroups].map((form) => [form.name, form] as const))('%s: few rows', async (_, form) => {
    for (const [m, n, k] of [[7, 37, 75], [5, 18, 2]] as const) {
      const [x, w, bias] = [draw(m * k), draw(n * k), draw(n)];
      const y = output([m, n]);
      const job: Job = { m, n, k, batch: 1, a: matrix(tf.tensor2d(x, [m, k]), { outer: m, inner: k, summedInside: true }), b: matrix(tf.tensor2d(w, [n, k]), { outer: n, inner: k, summedInside: true }), bias: gpu.buffer(tf.tensor1d(bias)), steps: [], outputs: [{ after: 0, buffer: y.buffer }] };
      runJobs(gpu, [job], form);
      expectClose(await y.values(), product(m, n, k, (i, l) => x[i * k + l]!, (j, l) => w[j * k + l]!).map((value, i) => value + bias[i % n]!));
      expect(form.takes({ ...job, m: 17 })).toBe(false);
    }
  });
});

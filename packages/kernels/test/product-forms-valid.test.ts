import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, expect, it } from 'vitest';
import { create, globals } from 'webgpu';
import { useBackend } from '../src/index.js';
import { Gpu } from '../src/webgpu/gpu.js';
import { byMatrices } from '../src/webgpu/matrix-product.js';
import { matrix, packedMatrix } from '../src/webgpu/operands.js';
import type { Job } from '../src/webgpu/product-code.js';
import type { ProductForm } from '../src/webgpu/product-form.js';
import { formsFor } from '../src/webgpu/product-forms.js';
import { runJobs } from '../src/webgpu/run-jobs.js';
import { tiledBySubgroups } from '../src/webgpu/subgroup-product.js';
import { thinBySubgroups } from '../src/webgpu/thin-product.js';
import { tiled } from '../src/webgpu/tiled-product.js';
import { halves } from './halves.js';

// a device that has every feature, validates shaders, and computes nothing
let gpu: Gpu;
beforeAll(async () => {
  Object.assign(globalThis, globals);
  Object.defineProperty(globalThis, 'navigator', { value: { gpu: create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']), userAgent: 'node' }, configurable: true });
  await useBackend({ prefer: 'webgpu' });
  gpu = Gpu.of(tf.backend());
});

let count = 0;

/** What is wrong with a form's shaders, of odd sizes and even ones, and how many pipelines there are. */
async function compile(tried: ProductForm): Promise<{ invalid: string[]; refused: string[]; compiled: number }> {
  // forms of one name would be compiled once
  const form = { ...tried, name: `${tried.name} ${(count += 1)}` };
  const [invalid, refused]: [string[], string[]] = [[], []];
  let compiled = 0;
  for (const size of [7, 8]) {
    const x = tf.ones<tf.Rank.R2>([size, size]);
    const { words } = halves(size, size, 1);
    const summedInside = form.thin === true || size === 8;
    const inner = { outer: size, inner: size, summedInside };
    const b = form.half === true ? packedMatrix(words, undefined, { bits: 16, outer: size, inner: size }) : matrix(x, inner);
    const job: Job = { m: size, n: size, k: size, batch: 1, a: matrix(x, inner), b, steps: [{ kind: 'gelu' }], outputs: [{ after: 1, buffer: gpu.buffer(tf.ones([size, size])) }] };
    expect(form.takes(job)).toBe(true);
    gpu.device.pushErrorScope('validation');
    const ready = gpu.pipelines.compileAhead(() => runJobs(gpu, [job], form), {}).then(() => (compiled += 1), (error: unknown) => refused.push(String(error)));
    const error = await gpu.device.popErrorScope();
    if (error !== null) invalid.push(error.message);
    await ready;
  }
  return { invalid, refused, compiled };
}

it.each([tiled(4, 4, { half: true }), tiled(8, 8, { half: true }), thinBySubgroups, tiledBySubgroups(4), tiledBySubgroups(32)].map((form) => [form.name, form] as const))('%s: valid with the features it needs', async (_, form) => {
  expect(formsFor(gpu.device).map(({ name }) => name)).toContain(form.name);
  expect(await compile(form)).toEqual({ invalid: [], refused: [], compiled: 2 });
});

it.each([
  ['f16', 16, 16, 16, 32],
  ['f16', 16, 8, 16, 32],
  ['f16', 8, 16, 16, 16],
  ['f16', 16, 16, 16, 64],
  ['f32', 8, 8, 8, 32],
] as const)('matrices of %s, %i×%i×%i, by subgroups of %i: valid', async (componentType, M, N, K, lanes) => {
  const form = byMatrices({ componentType, resultComponentType: 'f32', M, N, K }, lanes)!;
  expect(await compile(form)).toEqual({ invalid: [], refused: [], compiled: 2 });
});

it('finds what is invalid', async () => {
  const { invalid } = await compile({ ...tiled(4, 4, { half: true }), directives: '' });
  expect(invalid.length).toBe(2);
  expect(invalid[0]).toContain('f16');
});

it('makes no form of matrices that its tiles cannot be cut into, or whose sums are not float32', () => {
  const config = { componentType: 'f16', resultComponentType: 'f32', M: 16, N: 16, K: 16 };
  expect(byMatrices(config, 32)).toBeDefined();
  expect(byMatrices({ ...config, resultComponentType: 'f16' }, 32)).toBeUndefined();
  expect(byMatrices({ ...config, componentType: 'i8' }, 32)).toBeUndefined();
  expect(byMatrices({ ...config, K: 48 }, 32)).toBeUndefined();
  expect(byMatrices({ ...config, M: 24 }, 32)).toBeUndefined();
  expect(byMatrices({ ...config, N: 64 }, 4)).toBeUndefined();
});

it('offers the matrices that the driver prefers, those of float16 and those of float32', () => {
  const config = (componentType: string, size: number) => ({ componentType, resultComponentType: 'f32', M: size, N: size, K: size });
  const device = (features: string[]) => ({ features: new Set(features), adapterInfo: { subgroupMinSize: 16, subgroupMaxSize: 32, subgroupMatrixConfigs: [{ ...config('f16', 16), resultComponentType: 'f16' }, config('f16', 16), config('f16', 8), config('f32', 8)] } }) as unknown as GPUDevice;
  const named = (features: string[]): string[] => formsFor(device(features)).map(({ name }) => name).filter((name) => /matrices|float16|subgroups/.test(name));
  expect(named([])).toEqual([]);
  expect(named(['shader-f16'])).toEqual(['tiled 4×4 in float16', 'tiled 8×8 in float16']);
  expect(named(['subgroups'])).toEqual(['thin by subgroups', 'tiled 4×8 by subgroups']);
  expect(named(['subgroups', 'chromium-experimental-subgroup-matrix'])).toEqual(['thin by subgroups', 'tiled 4×8 by subgroups', '8×8×8 matrices of float32']);
  expect(named(['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix']).slice(2)).toEqual(['thin by subgroups', 'tiled 4×8 by subgroups', '16×16×16 matrices of float16', '8×8×8 matrices of float32']);
});

import * as tf from '@tensorflow/tfjs-core';
import { beforeEach, expect, it } from 'vitest';
import { linear, resetWebgpuCounters, useBackend, webgpuCounters } from '../src/index.js';
import { type Trial, chooseForms } from '../src/webgpu/choose-forms.js';
import { Gpu } from '../src/webgpu/gpu.js';
import type { ProductForm } from '../src/webgpu/product-form.js';
import { formsFor, portableForm } from '../src/webgpu/product-forms.js';
import { tiled } from '../src/webgpu/tiled-product.js';
import { timeOf } from '../src/webgpu/time-of.js';

// few rows, as those shaders are the quickest to compile
const few: Trial = { kind: 'few rows', checked: [5, 17, 9], timed: [4, 64, 64] };
const portable = portableForm('few rows');

/** The portable form under another name, with other code. */
const like = (name: string, change: (code: string) => string, more: Partial<ProductForm> = {}): ProductForm => ({ ...portable, ...more, name, code: (bound) => change(portable.code(bound)) });

let gpu: Gpu;
beforeEach(async () => {
  await useBackend({ prefer: 'webgpu' });
  gpu = Gpu.of(tf.backend());
  gpu.products.choices = undefined;
});

it('takes the fastest of the forms that are right, and says what became of the others', async () => {
  const forms = [
    like('same', (code) => code),
    like('faster', (code) => code),
    // a last part of the sum left out
    like('wrong in odd sizes', (code) => code.replace('k < u.j0K', 'k < u.j0K / 4u * 4u')),
    like('idle', (code) => code.replace('let lane', 'if (u.j0K > 0u) { return; }\n  let lane')),
    like('no WGSL', (code) => `${code} this is none`),
    like('needs what is not there', (code) => code, { directives: 'enable f16;' }),
    tiled(4, 4), // not for few rows
  ];
  const before = tf.memory();
  resetWebgpuCounters();
  const asked: string[] = [];
  const clock = async (_: Gpu, run: () => void, { name }: ProductForm): Promise<number> => {
    run();
    asked.push(name);
    return { faster: 1, same: 1.9, [portable.name]: 2 }[name]!;
  };
  const [choice] = await chooseForms(gpu, { forms, trials: [few], clock, budget: Infinity });
  expect(choice!.form.name).toBe('faster');
  expect(choice!.tried).toEqual({
    [portable.name]: '2.00 ms',
    same: '1.90 ms',
    faster: '1.00 ms',
    'wrong in odd sizes': expect.stringMatching(/^wrong by [\d.e+-]+ of the largest value$/),
    idle: 'wrong by 1.0 of the largest value',
    'no WGSL': expect.stringMatching(/^does not compile: .*this/s),
    'needs what is not there': expect.stringMatching(/^does not compile: .*f16/s),
  });
  expect(asked).toEqual([portable.name, 'same', 'faster', portable.name, 'same', 'faster']);
  // nothing of it is left, neither as an error of the device
  expect(tf.memory().numTensors).toBe(before.numTensors);
  expect(tf.memory().numDataBuffers).toBe(before.numDataBuffers);
  expect(webgpuCounters().dispatches).toBe(0);
  expect(gpu.products.choices).toEqual([choice]);
  // and products run in it from now on
  const variants: string[] = [];
  const { run } = gpu.pipelines;
  gpu.pipelines.run = (dispatch) => {
    variants.push(dispatch.variant ?? '');
    run.call(gpu.pipelines, dispatch);
  };
  expect(Array.from(await linear(tf.ones([5, 2]), tf.tensor2d([[1, 2], [3, 4]])).data())).toEqual(Array.from({ length: 5 }, () => [3, 7]).flat());
  gpu.pipelines.run = run;
  expect(variants).toEqual([expect.stringMatching(/^faster\|/)]);
  // until they are asked to be portable
  expect((await useBackend({ prefer: 'webgpu', products: 'portable' })).products).toEqual([]);
  expect(gpu.products.choices).toBeUndefined();
});

it('stays with the portable form where another gains nothing, and where time is up', async () => {
  const forms = [like('same', (code) => code)];
  const once = async (clock: (form: ProductForm) => number, budget = Infinity) => (await chooseForms(gpu, { forms, trials: [few], clock: async (_gpu, _run, form) => clock(form), budget }))[0]!;
  expect((await once(({ name }) => (name === 'same' ? 0.97 : 1))).form).toBe(portable);
  expect((await once(({ name }) => (name === 'same' ? 0.9 : 1))).form.name).toBe('same');
  const late = await once(() => 1, 1);
  expect(late.form).toBe(portable);
  expect(late.tried).toEqual({ same: 'no time' });
  expect(await chooseForms(gpu, { forms, trials: [few], budget: -1 })).toEqual([]);
});

it('measures on the device itself, as it is asked to', async () => {
  const [choice] = await chooseForms(gpu, { trials: [few], budget: Infinity });
  const rivals = formsFor(gpu.device).filter((form) => form.thin === true).map(({ name }) => name);
  expect(rivals).toContain('thin');
  expect(Object.keys(choice!.tried)).toEqual(rivals);
  for (const outcome of Object.values(choice!.tried)) expect(outcome).toMatch(/^[\d.e+-]+ ms$/);
  expect(rivals).toContain(choice!.form.name);
  // more work takes longer, at the quickest of some times: other programs may slow any of them
  const quickest = async (run: () => void): Promise<number> => Math.min(await timeOf(gpu, run), await timeOf(gpu, run), await timeOf(gpu, run));
  const work = (width: number) => {
    const [x, weight] = [tf.ones<tf.Rank.R2>([4, width]), tf.ones<tf.Rank.R2>([width, width])];
    const run = (): void => void gpu.buffer(linear(x, weight));
    run();
    return run;
  };
  const [little, much] = [work(64), work(1024)];
  const { backend } = gpu;
  const { supportTimestampQuery } = backend;
  for (const byTheDevice of new Set([supportTimestampQuery, false])) {
    backend.supportTimestampQuery = byTheDevice;
    const less = await quickest(little);
    expect(less).toBeGreaterThan(0);
    expect(await quickest(much)).toBeGreaterThan(less);
  }
  backend.supportTimestampQuery = supportTimestampQuery;
});

it('tries forms on both axes of float32 weights, and on float16 ones', async () => {
  const size = { checked: [20, 8, 12], timed: [20, 12, 8] } as const;
  // another of the same name, which is compiled already
  const same = { ...portableForm('small') };
  const choices = await chooseForms(gpu, { forms: [same], trials: [{ kind: 'small', ...size }, { kind: 'small, float16 weights', ...size }], clock: async (_gpu, _run, form) => (form === same ? 1 : 2), budget: Infinity });
  expect(choices).toEqual(['small', 'small, float16 weights'].map((products) => ({ products, form: same, tried: { 'tiled 4×4': '1.00 ms' } })));
  for (const { form } of choices) expect(form).toBe(same);
});

it('does not measure on software adapters unasked', async () => {
  expect((await useBackend({ prefer: 'webgpu' })).products).toEqual([]);
  expect(gpu.products.choices).toBeUndefined();
  await expect(useBackend({ prefer: 'webgpu', products: 'fast' as never })).rejects.toThrow('one of auto, measured, portable');
});

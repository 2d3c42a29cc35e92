import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { type HookOptions, randomNormal, runBlocks } from '@tinyfusion/nn';
import { parseSafetensors, stateDictOf, writableTensor, writeSafetensors } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { LinearReplacement, ReplacementFit, cholesky, choleskySolve, maskHook, readReplacements, removedRuns, replacementHook, replacementTensors } from '../src/index.js';

const D = 6;

/** A stack of blocks x ← x + f(x Wᵀ + b). */
function stack(depth: number, seed: number, f: (h: tf.Tensor) => tf.Tensor): { forward: (x: tf.Tensor3D, hooks?: HookOptions) => tf.Tensor3D; weights: tf.Tensor2D[]; biases: tf.Tensor1D[]; dispose: () => void } {
  const rng = createRng(seed);
  const weights = Array.from({ length: depth }, () => randomNormal<tf.Rank.R2>(rng, [D, D]));
  const biases = Array.from({ length: depth }, () => randomNormal<tf.Rank.R1>(rng, [D]));
  return {
    weights,
    biases,
    forward: (x, hooks = {}) => runBlocks('blocks', [...weights.keys()], x, (i, h) => tf.add(h, tf.mul(0.3, f(tf.add(tf.reshape(tf.matMul(tf.reshape(h, [-1, D]), weights[i]!, false, true), h.shape), biases[i]!)))) as tf.Tensor3D, hooks),
    dispose: () => tf.dispose([weights, biases]),
  };
}

describe('the Cholesky factorisation', () => {
  it('solves, and says where there is no factor', () => {
    const rng = createRng(1);
    const n = 24;
    const g = Float64Array.from(rng.normal(n * n));
    const a = new Float64Array(n * n);
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) for (let k = 0; k < n; k++) a[i * n + j]! += g[i * n + k]! * g[j * n + k]!;
    const x = Float64Array.from(rng.normal(n * 3));
    const b = new Float64Array(n * 3);
    for (let i = 0; i < n; i++) for (let c = 0; c < 3; c++) for (let k = 0; k < n; k++) b[i * 3 + c]! += a[i * n + k]! * x[k * 3 + c]!;
    const l = cholesky(a, n)!;
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) {
      let product = 0;
      for (let k = 0; k < n; k++) product += l[i * n + k]! * l[j * n + k]!;
      expect(product).toBeCloseTo(a[i * n + j]!, 9);
    }
    choleskySolve(l, b, n, 3).forEach((v, i) => expect(v).toBeCloseTo(x[i]!, 6));
    expect(cholesky(Float64Array.of(1, 2, 2, 1), 2)).toBeUndefined();
    expect(cholesky(Float64Array.of(Number.NaN), 1)).toBeUndefined();
    expect(() => cholesky(new Float64Array(3), 2)).toThrow(/2² values/);
  });
});

describe.each(['cpu', 'wasm'] as const)('linear replacement on %s', (backend) => {
  beforeAll(async () => void (await useBackend({ prefer: backend })));

  async function fit(model: ReturnType<typeof stack>, runs: Parameters<typeof removedRuns> | readonly (readonly [number, number])[], { ridge, batches = 4, shift = 0 }: { ridge?: number; batches?: number; shift?: number } = {}) {
    const own = typeof runs[0] === 'number' ? removedRuns(...(runs as Parameters<typeof removedRuns>)) : (runs as readonly (readonly [number, number])[]);
    const fitting = new ReplacementFit(own, ridge === undefined ? {} : { ridge });
    const rng = createRng(77);
    for (let i = 0; i < batches; i++) {
      tf.tidy(() => void model.forward(tf.add(randomNormal<tf.Rank.R3>(rng, [4, 10, D]), shift) as tf.Tensor3D, { hook: fitting.hook }));
      await fitting.endBatch();
    }
    return fitting.solve();
  }
  const gap = (a: tf.Tensor3D, b: tf.Tensor3D): number => tf.tidy(() => tf.norm(tf.sub(a, b)).dataSync()[0]! / tf.norm(a).dataSync()[0]!);

  it('recovers runs that are linear, biases and large means included', async () => {
    const model = stack(6, 3, (h) => h);
    for (const shift of [0, 50]) {
      const before = tf.memory().numTensors;
      const fitted = await fit(model, [[1, 3], [4, 6]], { shift, ridge: 1e-8 });
      expect(fitted.length).toBe(2);
      for (const { error, ridge } of fitted) {
        expect(error).toBeLessThan(1e-3); // in closed form; its square has float32's 1e-7
        expect(ridge).toBe(1e-8);
      }
      tf.tidy(() => {
        // x + 0.3 (x W₁ᵀ + b₁), then the same of block 2
        const step = (i: number): tf.Tensor2D => tf.add(tf.eye(D), tf.mul(0.3, tf.transpose(model.weights[i]!)));
        const exact = tf.sub(tf.matMul(step(1), step(2)), tf.eye(D)); // [in, out]
        const off = tf.max(tf.abs(tf.sub(tf.transpose(exact), fitted[0]!.replacement.linear.weight))).dataSync()[0]!;
        expect(off).toBeLessThan(1e-5);
        const x = tf.add(randomNormal<tf.Rank.R3>(createRng(5), [2, 3, D]), shift) as tf.Tensor3D; // tokens that were not in calibration
        expect(gap(model.forward(x), model.forward(x, { hook: replacementHook(fitted.map((f) => f.replacement)) }))).toBeLessThan(1e-5);
      });
      for (const { replacement } of fitted) replacement.dispose();
      expect(tf.memory().numTensors).toBe(before);
    }
    model.dispose();
  });

  it('is better than leaving a run out where it is not linear, and says by how much', async () => {
    const model = stack(5, 8, (h) => tf.tanh(h));
    const kept = [0, 3];
    const fitted = await fit(model, [5, kept] as never, { batches: 10 });
    const hook = replacementHook(fitted.map((f) => f.replacement));
    tf.tidy(() => {
      const x = randomNormal<tf.Rank.R3>(createRng(6), [8, 10, D]);
      const y = model.forward(x);
      const [skipped, replaced] = [gap(y, model.forward(x, { hook: maskHook(kept) })), gap(y, model.forward(x, { hook }))];
      expect(replaced).toBeLessThan(0.6 * skipped);
      // the error that is reported is that of the run, on tokens like those of calibration
      const input = model.forward(x, { hook: maskHook([0]) });
      const output = model.forward(x, { hook: maskHook([0, 1, 2]) });
      const own = tf.norm(tf.sub(output, fitted[0]!.replacement.forward(input))).dataSync()[0]! / tf.norm(tf.sub(output, input)).dataSync()[0]!;
      expect(own / fitted[0]!.error).toBeGreaterThan(0.85);
      expect(own / fitted[0]!.error).toBeLessThan(1.25);
    });
    for (const { replacement } of fitted) replacement.dispose();
    model.dispose();
  });

  it('is the least-squares fit with its ridge: no small change of a weight makes it better', async () => {
    const model = stack(2, 9, (h) => tf.sin(tf.mul(2, h)));
    const [found] = await fit(model, [[0, 2]], { batches: 1, ridge: 0.05 });
    const { replacement, error } = found!;
    tf.tidy(() => {
      const x = randomNormal<tf.Rank.R3>(createRng(77), [4, 10, D]);
      const y = model.forward(x);
      const flat = tf.reshape(x, [-1, D]);
      const variance = tf.sum(tf.square(tf.sub(flat, tf.mean(flat, 0, true))), 0); // what the ridge is measured by
      const own = (): number => tf.sum(tf.square(tf.sub(y, replacement.forward(x)))).dataSync()[0]!;
      const objective = (): number => own() + 0.05 * tf.sum(tf.mul(tf.square(replacement.linear.weight), variance)).dataSync()[0]!;
      expect(Math.sqrt(own() / tf.sum(tf.square(tf.sub(y, x))).dataSync()[0]!)).toBeCloseTo(error, 4);
      const best = objective();
      for (const parameter of [replacement.linear.weight, replacement.linear.bias!]) {
        for (const by of [0.02, -0.02]) {
          const [values, change] = [tf.clone(parameter), randomNormal(createRng(3), parameter.shape as [number, number])];
          parameter.assign(tf.add(values, tf.mul(change, by)));
          expect(objective()).toBeGreaterThan(best);
          parameter.assign(values);
        }
      }
    });
    replacement.dispose();
    model.dispose();
  });

  it('survives features that do not vary or repeat', async () => {
    const rng = createRng(2);
    const fitting = new ReplacementFit([[0, 1]]);
    tf.tidy(() => {
      const free = randomNormal<tf.Rank.R3>(rng, [4, 8, 2]);
      const x = tf.concat([free, tf.slice(free, [0, 0, 0], [-1, -1, 1]), tf.ones([4, 8, 1])], 2) as tf.Tensor3D;
      runBlocks('blocks', [0], x, (_, h) => tf.mul(h, 2) as tf.Tensor3D, { hook: fitting.hook });
    });
    const [{ replacement, error }] = (await fitting.solve()) as [Awaited<ReturnType<ReplacementFit['solve']>>[0]];
    expect(error).toBeLessThan(2e-3);
    expect(Array.from(await replacement.linear.weight.data()).every((v) => Math.abs(v) < 2)).toBe(true);
    replacement.dispose();
  });

  it('goes with a model that was cut', async () => {
    const model = stack(6, 4, (h) => tf.tanh(h));
    const kept = [2, 3];
    const fitted = await fit(model, [6, kept] as never);
    const replacements = fitted.map((f) => f.replacement);
    expect(replacements.map(({ run }) => run)).toEqual([[0, 2], [4, 6]]);
    tf.tidy(() => {
      const x = randomNormal<tf.Rank.R3>(createRng(5), [1, 2, D]);
      const student = (hook: HookOptions['hook']): tf.Tensor3D => runBlocks('blocks', kept, x, (i, h) => tf.add(h, tf.mul(0.3, tf.tanh(tf.add(tf.reshape(tf.matMul(tf.reshape(h, [-1, D]), model.weights[i]!, false, true), h.shape), model.biases[i]!)))) as tf.Tensor3D, { hook });
      expect(gap(model.forward(x, { hook: replacementHook(replacements) }), student(replacementHook(replacements, { kept })))).toBeLessThan(1e-6);
      expect(() => model.forward(x, { hook: replacementHook(replacements, { kept }) })).toThrow(/kept is 2, expected one index for each of the model's 6 blocks/);
      expect(() => student(replacementHook(replacements))).toThrow(/blocks of the model's 2; give the kept blocks/);
    });
    expect(() => replacementHook(replacements, { kept: [1, 2] })).toThrow(/blocks that are gone; 1,2 are kept/);
    expect(() => replacementHook([replacements[0]!, replacements[0]!])).toThrow(/do not overlap/);
    // through a checkpoint
    const before = tf.memory().numTensors;
    const tensors = await replacementTensors(replacements);
    const file = await parseSafetensors(writeSafetensors(tensors.map(([name, { values, shape }]) => [name, writableTensor(values, shape)] as const)));
    const read = await readReplacements(file);
    expect(read.map(({ run }) => run)).toEqual([[0, 2], [4, 6]]);
    expect(await read[1]!.linear.weight.data()).toEqual(await replacements[1]!.linear.weight.data());
    expect(await read[1]!.linear.bias!.data()).toEqual(await replacements[1]!.linear.bias!.data());
    for (const one of read) one.dispose();
    await expect(readReplacements(stateDictOf(tensors.filter(([name]) => name !== 'linear_replacements.4-6.bias')))).rejects.toThrow(/blocks 4 to 6 is damaged: weight \[6, 6\], bias \[missing\]/);
    expect(await readReplacements(stateDictOf([]))).toEqual([]);
    expect(tf.memory().numTensors).toBe(before);
    for (const one of replacements) one.dispose();
    model.dispose();
  });

  it('refuses runs and measurements that do not fit, and frees everything', async () => {
    const model = stack(3, 1, (h) => h);
    const before = tf.memory().numTensors;
    expect(() => new ReplacementFit([])).toThrow(/runs of blocks/);
    expect(() => new ReplacementFit([[0, 2], [1, 3]])).toThrow(/do not overlap/);
    expect(() => new ReplacementFit([[0, 1]], { ridge: -1 })).toThrow(/ridge is -1/);
    expect(() => new LinearReplacement([2, 2], 4)).toThrow(/0 ≤ start < end/);
    await expect(new ReplacementFit([[0, 1]]).solve()).rejects.toThrow(/forward pass of the whole model/);
    const x = tf.ones([1, 2, D]) as tf.Tensor3D;
    const far = new ReplacementFit([[0, 1], [2, 4]]);
    expect(() => tf.tidy(() => model.forward(x, { hook: far.hook }))).toThrow(/blocks of the model's 3/);
    far.dispose();
    const broken = new ReplacementFit([[0, 1]]);
    tf.tidy(() => void model.forward(tf.mul(x, Number.NaN) as tf.Tensor3D, { hook: broken.hook }));
    await expect(broken.solve()).rejects.toThrow(/finite hidden states/);
    broken.dispose();
    x.dispose();
    expect(tf.memory().numTensors).toBe(before);
    model.dispose();
  });
});

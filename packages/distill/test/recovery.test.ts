import { createRng } from '@tinyfusion/core';
import { runBlocks } from '@tinyfusion/nn';
import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { ActivationStatistics, FeatureGuard, composeMaps, decayingWeight, evenLayerMap, layerFeatureLosses, layerMapOfChoice, layerMapOfGroups, maskedFeatureLoss, proposeThreshold, recoveryVariants, teacherChain } from '../src/index.js';

describe('layer maps', () => {
  it('follow the choice: each kept block has the removed ones after it', () => {
    expect(layerMapOfChoice([0, 3, 4], 6)).toEqual([[0, 2], [1, 3], [2, 5]]);
    expect(layerMapOfChoice([1, 2, 3], 4)).toEqual([[0, 1], [1, 2], [2, 3]]);
    expect(() => layerMapOfChoice([3, 1], 4)).toThrow('ascending indices from 0 to 3');
    // every second from the first on is the reference's map
    expect(layerMapOfChoice(Array.from({ length: 14 }, (_, i) => 2 * i), 28)).toEqual(layerMapOfGroups(Array.from({ length: 14 }, () => ({ kept: 1, size: 2 }))));
  });

  it('go through chains of teachers', () => {
    const [first, second] = teacherChain([28, 14, 7]);
    expect([first!.from, first!.to, second!.to]).toEqual([28, 14, 7]);
    expect(composeMaps(second!.map, first!.map)).toEqual(evenLayerMap(28, 7));
    expect(() => teacherChain([7, 14])).toThrow('falling depths');
    expect(() => composeMaps([[0, 1]], [[0, 3]])).toThrow('share a block');
  });
});

it('the feature weight fades by step, and a single step has it whole', () => {
  expect(decayingWeight(0.01, 0, 1)).toBe(0.01);
  expect(decayingWeight(1, 5, 11)).toBeCloseTo(0.5);
  expect(decayingWeight(1, 5, 11, { decay: 'cosine' })).toBeCloseTo(0.5);
  expect(decayingWeight(1, 10, 11, { decay: 'cosine' })).toBeCloseTo(0);
  expect(decayingWeight(1, 10, 11, { decay: 'constant' })).toBe(1);
  expect([0, 1, 2, 3].map((step) => decayingWeight(1, step, 100, { decay: 'constant', warmUp: 4 }))).toEqual([0.25, 0.5, 0.75, 1]);
});

it('the feature weight stays at 0 after the last step, and fades in no way that it does not know', () => {
  expect(decayingWeight(0.01, 10, 5)).toBe(0);
  expect(decayingWeight(0.01, 150, 101, { decay: 'cosine' })).toBe(0);
  expect(() => decayingWeight(0.01, 2, 5, { decay: 'exp' as 'linear' })).toThrow(/decay is "exp", expected 'linear', 'cosine' or 'constant'/);
  expect(() => decayingWeight(Number.NaN, 2, 5)).toThrow(/from is NaN/);
  expect(() => decayingWeight(0.01, Number.NaN, 5)).toThrow(/step is NaN/);
});

it('maps are refused where layers are not there', () => {
  expect(() => evenLayerMap(Number.NaN, 2)).toThrow('depth is NaN');
  expect(() => evenLayerMap(2.5, 2)).toThrow('depth is 2.5');
  expect(() => layerMapOfGroups([{ kept: 0, size: 2 }, { kept: 2, size: 4 }])).toThrow(/group 0 is .*from 1 to its size/);
  expect(() => layerMapOfGroups([{ kept: 1, size: 2 }, { kept: 3, size: 2 }])).toThrow(/group 1 is .*to its size/);
  expect(() => layerMapOfGroups([])).toThrow('one at least');
  expect(layerMapOfGroups([{ kept: 1, size: 2 }, { kept: 0, size: 2 }, { kept: 2, size: 2 }])).toEqual([[0, 1], [0, 3], [2, 5]]);
});

it('losses of the layers are the terms of the whole', async () => {
  const rng = createRng(1);
  const draw = () => tf.tensor3d(rng.normal(2 * 3 * 8), [2, 3, 8]);
  const [student, teacher] = [[draw(), draw()], [draw(), draw()]];
  for (const mode of ['official', 'intersection'] as const) {
    const parts = layerFeatureLosses(student, teacher, { mode });
    const whole = await maskedFeatureLoss(student, teacher, { mode }).data();
    const mean = await tf.div(tf.addN(parts), 2).data();
    expect([...whole]).toEqual([...mean]);
  }
});

describe('the guard', () => {
  const pairs = [[0, 1], [1, 3]] as const;

  it('names the layer that explodes, before long, and what to do', () => {
    const guard = new FeatureGuard(pairs);
    for (let step = 0; step < 40; step++) expect(guard.check(step, [1 + Math.sin(step), 5])).toBe(undefined);
    let found;
    let step = 40;
    for (let value = 10; found === undefined && step < 80; step++, value *= 2) found = guard.check(step, [1, value]);
    expect(found).toMatchObject({ pair: [1, 3], typical: 5 });
    expect(step).toBeLessThan(48);
    expect(found!.message).toMatch(/student block 1 against teacher block 3 is \d+.*usually 5\.00: mask massive activations/);
    expect(() => new FeatureGuard(pairs).watch(3, [1, Number.NaN])).toThrow(/block 1 against teacher block 3 is NaN/);
  });

  it.each([1.01, 1.05, 1.1, 1.12, 1.2, 2, 10])('names a loss that grows × %s a step from the start', (rate) => {
    const guard = new FeatureGuard([[3, 7]]);
    const lowest = rate ** 2; // the median of the first five
    for (let step = 0; ; step++) {
      const value = rate ** step;
      const found = guard.check(step, [value]);
      if (found === undefined) {
        expect(value).toBeLessThan(20 * lowest * rate ** 3);
        continue;
      }
      expect(found).toMatchObject({ pair: [3, 7], typical: lowest });
      break;
    }
  });

  it('does not take for an explosion what is still nearer to the teacher than nothing is', () => {
    // a student that begins as its teacher: the distance rises from 0 with the square of the steps
    const rising = (step: number): number => 1e-6 * step ** 2;
    const blind = new FeatureGuard([[0, 0]]);
    expect(Array.from({ length: 30 }, (_, step) => blind.check(step, [rising(step)])).some((found) => found !== undefined)).toBe(true);
    const guard = new FeatureGuard([[0, 0]]);
    for (let step = 0; step < 300; step++) expect(guard.check(step, [rising(step)], step === 0 ? [0.5] : undefined)).toBe(undefined);
    const saved = JSON.parse(JSON.stringify(guard.state())) as ReturnType<FeatureGuard['state']>;
    const resumed = new FeatureGuard([[0, 0]]);
    resumed.restore(saved);
    expect([resumed.hasEnergies, resumed.state()]).toEqual([true, saved]);
    for (const own of [guard, resumed]) expect([0.6, 0.7, 0.8].map((value, i) => own.check(300 + i, [value])?.value)).toEqual([undefined, undefined, 0.8]);
    expect(() => guard.check(0, [1], [1, 2])).toThrow('energies is 2');
  });

  it('names what explodes in the first steps, where it knows what the teacher’s states are like', () => {
    const losses = [0.75, 68, 1.4e3, 6.3e4, 2.8e4, 1.1e3, 40, 49];
    const guard = new FeatureGuard([[0, 1]]);
    const found = losses.map((loss, i) => guard.check(i + 1, [loss], i === 0 ? [1.1] : undefined));
    expect(found.map((f) => f?.step)).toEqual([undefined, undefined, undefined, 4, 5, 6, 7, 8]);
    expect(found[3]).toMatchObject({ typical: 1.1, value: 6.3e4 });
  });

  it('names the first of the layers that are not finite, whatever those before them have seen', () => {
    const guard = new FeatureGuard([[0, 1], [1, 3], [2, 5]]);
    expect(guard.check(1, [1, Infinity, Number.NaN])).toMatchObject({ pair: [1, 3], value: Infinity });
  });

  it('gives no alarm for noise, single peaks, or a loss that falls', () => {
    const rng = createRng(2);
    const guard = new FeatureGuard(pairs);
    for (let step = 0; step < 2000; step++) {
      const [a, b] = rng.normal(2);
      expect(guard.check(step, [Math.exp(a! - step / 1000), step % 100 === 99 ? 1000 : Math.exp(b!)])).toBe(undefined);
    }
    expect(() => guard.check(0, [1])).toThrow('2, one for each mapped layer');
  });
});

it('features teach the student alone', async () => {
  const draw = (seed: number) => tf.tensor3d(createRng(seed).normal(48), [2, 3, 8]);
  const [student, teacher] = [draw(1), draw(2)];
  for (const mode of ['official', 'intersection'] as const) {
    for (const sigmas of [1, Infinity]) {
      const [own, theirs] = tf.grads((s: tf.Tensor, t: tf.Tensor) => tf.sum(maskedFeatureLoss([s as tf.Tensor3D], [t as tf.Tensor3D], { sigmas, mode })))([student, teacher]);
      expect((await tf.max(tf.abs(own!)).data())[0]).toBeGreaterThan(0.01);
      expect((await tf.max(tf.abs(theirs!)).data())[0]).toBe(0);
    }
  }
  expect(() => maskedFeatureLoss([student], [teacher], { mode: 'union' as 'official' })).toThrow("mode is \"union\", expected 'official' or 'intersection'");
});

describe('the activations’ own distribution', () => {
  const gaussian = (): Float32Array => createRng(3).normal(20_000);

  it('is counted exactly', () => {
    const statistics = new ActivationStatistics();
    statistics.add(0, [0, 0, 0, 4], 1); // mean 1, σ 2
    const [layer] = statistics.layers();
    expect(layer).toMatchObject({ layer: 0, count: 4, mean: 1, sigma: 2, min: 0, max: 4 });
    expect(layer!.beyond.slice(0, 5)).toEqual([1, 1, 0.25, 0.25, 0]);
    expect(layer!.energyBeyond[2]).toBeCloseTo(9 / 12);
    expect(() => statistics.add(1, [Number.NaN, 1], 1)).toThrow('finite');
  });

  it('of a Gaussian needs no mask; with massive ones the threshold parts them from the rest', () => {
    const statistics = new ActivationStatistics();
    statistics.add(0, gaussian(), 4);
    expect(statistics.layers()[0]!.kurtosis).toBeCloseTo(3, 0);
    expect(proposeThreshold(statistics.layers())).toMatchObject({ sigmas: Infinity, masked: 0 });
    const massive = gaussian().map((v, i) => (i % 5000 === 7 ? 400 : v));
    statistics.add(1, massive, 4);
    const proposed = proposeThreshold(statistics.layers(), { share: 0.05 });
    expect(proposed.sigmas).toBeGreaterThanOrEqual(0.5);
    expect(proposed.sigmas).toBeLessThan(6);
    expect(proposed.masked).toBeLessThanOrEqual(0.05);
    expect(proposed.energy).toBeGreaterThan(0.9);
    expect(proposed.why).toMatch(/block 1 has 9\d % of its squared deviation at 6 σ/);
    for (const options of [{ from: 100 }, { from: Number.NaN }, { share: Number.NaN }, { share: 5 }, { share: 0 }, { energy: 50 }]) expect(() => proposeThreshold(statistics.layers(), options)).toThrow(new RegExp(`proposeThreshold: ${Object.keys(options)[0]} is`));
  });

  it('is seen through the hook, and nothing is left behind', async () => {
    const statistics = new ActivationStatistics();
    const before = tf.memory().numTensors;
    const x = tf.tensor3d(createRng(4).normal(2 * 4 * 8), [2, 4, 8]);
    tf.tidy(() => void runBlocks('blocks', [1, 2, 3], x, (scale, h) => tf.mul(h, scale) as tf.Tensor3D, { hook: statistics.hook }));
    await statistics.endBatch();
    expect(statistics.layers().map(({ layer, count }) => [layer, count])).toEqual([[0, 64], [1, 64], [2, 64]]);
    expect(statistics.layers()[2]!.sigma / statistics.layers()[0]!.sigma).toBeCloseTo(6, 4);
    expect(tf.memory().numTensors).toBe(before + 1);
  });
});

it('the paper’s ways of recovery are a table', () => {
  expect(recoveryVariants.map(({ name }) => name)).toEqual(['fine-tuning', 'output KD', 'RepKD', 'masked RepKD, 0.1 σ', 'masked RepKD, 2 σ', 'masked RepKD, 4 σ', 'masked RepKD, 2 σ, intersection']);
});

// Step caching on the embedded teacher: what it saves, and what it does to the pictures.
import { createRng } from '@tinyfusion/core';
import { type AsyncDenoiser, GaussianDiffusion, classifierFreeGuidance, dpmSolver, sampleToEnd } from '@tinyfusion/diffusion';
import { loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { type DiT, loadDiT } from '@tinyfusion/models';
import { type Around, StepCache, calibrateStepCache, randomNormal } from '@tinyfusion/nn';
import { toldCalibration } from '../packages/recipes/src/step-caching.js';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';

const plain: Around = (pass) => async (x, t) => tf.keep(pass(x, t, (_site, h, run) => run(h)));

describe('step caching', () => {
  let model: DiT;
  let blocks = 0;
  beforeAll(async () => {
    await useBackend({ prefer: 'wasm' });
    model = await loadDiT(await loadTeacher());
  });

  async function sample(around: Around, { steps = 20, n = 4, seed = 0 } = {}): Promise<tf.Tensor> {
    const noise = randomNormal<tf.Rank.R4>(createRng(seed), [n, 8, 8, 4]);
    const y = tf.tensor1d([...Array.from({ length: n }, (_, i) => i), ...Array.from({ length: n }, () => model.nullClass)], 'int32');
    const denoiser: AsyncDenoiser = around((x, t, hook) => model.forward(x as tf.Tensor4D, t, y, { hook: (site, h, run) => hook(site, h, (z) => ((blocks += 1), run(z))) }));
    try {
      return await sampleToEnd(dpmSolver(new GaussianDiffusion(), classifierFreeGuidance(denoiser, { scale: 1.5, channels: 'all' }), { noise, steps, spacing: 'time' }));
    } finally {
      tf.dispose([noise, y]);
    }
  }

  const distance = (a: tf.Tensor, b: tf.Tensor): number => tf.tidy(() => tf.div(tf.norm(tf.sub(a, b)), tf.norm(b)).dataSync()[0]!);

  it('is exact at threshold 0, and leaves nothing', async () => {
    const before = tf.memory().numTensors;
    const wanted = await sample(plain);
    const cache = new StepCache({ threshold: 0 });
    const got = await sample((pass) => cache.around(pass));
    expect(distance(got, wanted)).toBe(0);
    expect(cache.report().schedule.every(Boolean)).toBe(true);
    expect(cache.report().distances).toHaveLength(19);
    cache.dispose();
    tf.dispose([wanted, got]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it.each(['first-block', 'accumulated'] as const)('by the rule %s skips blocks for an error that grows with the threshold, and a schedule does the same', async (rule) => {
    const before = tf.memory().numTensors;
    const wanted = await sample(plain, { steps: 40 });
    const errors: number[] = [];
    for (const threshold of [0.05, 0.2]) {
      const cache = new StepCache({ rule, threshold });
      blocks = 0;
      const got = await sample((pass) => cache.around(pass), { steps: 40 });
      const { schedule } = cache.report();
      const reused = schedule.filter((computed) => !computed).length;
      // a step that reuses runs one block of twelve, and one that tried to runs no block twice
      expect(blocks).toBe(12 * (40 - reused) + reused);
      errors.push(distance(got, wanted));
      console.log(`${rule} ${threshold}: ${40 - reused} of 40 steps computed, relative error ${errors.at(-1)!.toFixed(4)}`);
      expect(reused).toBeGreaterThan(0);
      const again = new StepCache({ schedule });
      const same = await sample((pass) => again.around(pass), { steps: 40 });
      expect(distance(same, got)).toBe(0);
      expect(again.report().distances).toHaveLength(0);
      cache.dispose();
      again.dispose();
      tf.dispose([got, same]);
    }
    wanted.dispose();
    expect(errors[0]).toBeLessThan(errors[1]!);
    expect(errors[0]).toBeLessThan(0.1);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('is calibrated to a wanted error, which holds for other noise', async () => {
    const { trials, chosen } = await calibrateStepCache((around) => sample(around, { steps: 40, n: 2 }), { error: 0.08 });
    expect(trials.length).toBeGreaterThan(1);
    expect(chosen!.error).toBeLessThanOrEqual(0.08);
    expect(chosen!.computed).toBeLessThan(0.9);
    const cache = new StepCache({ schedule: chosen!.schedule });
    const [got, wanted] = [await sample((pass) => cache.around(pass), { steps: 40, seed: 9 }), await sample(plain, { steps: 40, seed: 9 })];
    console.log(`calibrated: ${(100 * chosen!.computed).toFixed(0)} % of the steps computed, error ${chosen!.error.toFixed(3)}; with other noise ${distance(got, wanted).toFixed(3)}`);
    expect(distance(got, wanted)).toBeLessThan(0.12);
    tf.dispose([got, wanted]);
    cache.dispose();
  });

  it('refuses what makes no sense', () => {
    expect(() => new StepCache({ threshold: -1 })).toThrow(/at least 0/);
    expect(() => new StepCache({ threshold: NaN })).toThrow(/at least 0/);
    expect(() => new StepCache({ threshold: 0.1, most: 0 })).toThrow(/positive integer/);
    expect(() => new StepCache({ threshold: 0.1, rule: 'last' as 'accumulated' })).toThrow("rule is \"last\", expected 'first-block' or 'accumulated'");
    expect(() => new StepCache({ schedule: 'abc' as unknown as boolean[] })).toThrow(/schedule is "abc", expected a list of booleans/);
  });

  it('says why none was found: nothing to leave out, or too large an error', () => {
    const trial = (threshold: number, error: number, computed: number) => ({ threshold, error, computed, schedule: [true, computed === 1] });
    expect(toldCalibration({ trials: [trial(0.01, 0, 1), trial(0.3, 0, 1)], chosen: undefined }, 0.05)).toBe('step cache: none; no tried threshold, up to 0.3, leaves out the blocks of a step');
    expect(toldCalibration({ trials: [trial(0.01, 0, 1), trial(0.02, 0.2, 0.5)], chosen: undefined }, 0.05)).toBe('step cache: none; the least of the tried thresholds that leaves out blocks of a step, 0.02, has an error of 0.200, accepted are 0.05');
  });
});

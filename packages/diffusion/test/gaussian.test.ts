import '@tensorflow/tfjs-backend-cpu';
import { ArgumentError, ShapeError, createRng } from '@tinyfusion/core';
import { type Denoiser, GaussianDiffusion, type GaussianDiffusionOptions, betas, discretisedLogLikelihood, normalKL, priorBits, spacedTimesteps, totalBitsPerDimension } from '@tinyfusion/diffusion';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { useCpu } from './toy.js';

beforeAll(useCpu);

const normal = (shape: number[], seed: number) => tf.tensor(createRng(seed).normal(shape.reduce((a, b) => a * b, 1)), shape);
const closest = async (got: tf.Tensor, wanted: tf.Tensor) => (await tf.max(tf.abs(tf.sub(got, wanted))).data())[0]!;

describe('schedules', () => {
  it('end close to pure noise', () => {
    for (const schedule of ['linear', 'squared-cosine'] as const) {
      for (const steps of [100, 1000, 4000]) {
        const { tables } = new GaussianDiffusion({ schedule, steps });
        expect(tables.alphasCumprod.every((a, t) => a < (t === 0 ? 1 : tables.alphasCumprod[t - 1]!))).toBe(true);
        expect(tables.alphasCumprod.at(-1)).toBeLessThan(1e-4);
      }
    }
  });

  it('refuse what they do not know', () => {
    expect(() => betas('sigmoid' as 'linear', 10)).toThrow(/schedule is "sigmoid", expected 'linear' or 'squared-cosine'/);
    expect(() => betas('linear', 0)).toThrow(ArgumentError);
    for (const spec of ['0', '1001', 'ddim', 'ddim700', '10,,20', '400,400,300', 'x']) expect(() => spacedTimesteps(1000, spec), spec).toThrow(ArgumentError);
  });

  it('refuse a process whose end is noise alone, and names they do not know', () => {
    for (const steps of [10, 20]) expect(() => new GaussianDiffusion({ steps })).toThrow(/GaussianDiffusionOptions\.steps is \d+, expected at least 21/);
    expect(new GaussianDiffusion({ steps: 21 }).tables.alphasCumprod.at(-1)).toBeGreaterThan(0);
    for (const options of [{ prediction: 'v' }, { variance: 'learned_range' }, { loss: 'l1' }]) expect(() => new GaussianDiffusion(options as GaussianDiffusionOptions)).toThrow(/is "\w+", expected one of /);
    expect(() => new GaussianDiffusion({ respacing: 250 as never })).toThrow(/respacing is 250, expected a text/);
  });

  it('respaced keep the noise levels of the steps that stay', () => {
    const whole = new GaussianDiffusion();
    for (const respacing of ['250', 'ddim50', '10,15,20', '1']) {
      const { timestepMap, tables, steps } = new GaussianDiffusion({ respacing });
      expect(steps).toBe(timestepMap.length);
      for (const [i, t] of timestepMap.entries()) expect(tables.alphasCumprod[i]).toBeCloseTo(whole.tables.alphasCumprod[t]!, 12);
    }
  });
});

describe('the process on any rank', () => {
  for (const shape of [[3, 5], [3, 4, 5], [3, 2, 2, 5]]) {
    it(`[${shape.join(', ')}]: noise and data come back from their mixture, and the model's t is the original one`, async () => {
      const diffusion = new GaussianDiffusion({ respacing: '10', variance: 'fixed-small' });
      const [x0, noise] = [normal(shape, 1), normal(shape, 2)];
      const t = [0, 4, 9];
      const x = diffusion.qSample(x0, t, noise);
      expect(await closest(diffusion.startFromEpsilon(x, t, noise), x0)).toBeLessThan(1e-4);
      expect(await closest(diffusion.epsilonFromStart(x, t, x0), noise)).toBeLessThan(1e-4);
      let seen: number[] = [];
      const { xStart, mean, logVariance } = diffusion.predict(
        (_, s) => {
          seen = [...s.arraySync()];
          return tf.clone(noise);
        },
        x,
        t,
        { clipDenoised: false },
      );
      expect(seen).toEqual([0, 444, 999]);
      expect(await closest(xStart, x0)).toBeLessThan(1e-4);
      expect(await closest(mean, diffusion.posteriorMean(x0, x, t))).toBeLessThan(1e-4);
      expect(logVariance.shape).toEqual(shape);
    });
  }

  it('agrees whatever the model predicts', async () => {
    const shape = [4, 3];
    const t = [1, 200, 600, 999];
    const [x0, noise] = [normal(shape, 1), normal(shape, 2)];
    const means = ['epsilon', 'start', 'previous'].map((prediction) => {
      const diffusion = new GaussianDiffusion({ prediction: prediction as 'epsilon', variance: 'fixed-large' });
      const x = diffusion.qSample(x0, t, noise);
      const output = { epsilon: noise, start: x0, previous: diffusion.posteriorMean(x0, x, t) }[prediction]!;
      return diffusion.moments(output, x, t, { clipDenoised: false });
    });
    for (const { mean } of means) expect(await closest(mean, means[0]!.mean)).toBeLessThan(1e-4);
    // at 999, x₀ from the mean one step before divides by the 1e-4 that x₀ weighs in it
    for (const { xStart } of means.slice(0, 2)) expect(await closest(xStart, x0)).toBeLessThan(1e-4);
    expect(await closest(tf.slice(means[2]!.xStart, 0, 3), tf.slice(x0, 0, 3))).toBeLessThan(1e-3);
  });

  it('clips x₀ to [-1, 1] where asked to, or to another bound', async () => {
    const diffusion = new GaussianDiffusion({ variance: 'fixed-small', prediction: 'start' });
    const x = tf.zeros([1, 3]);
    const output = tf.tensor2d([[-3, 0.5, 2]]);
    expect([...(await diffusion.moments(output, x, [10]).xStart.data())]).toEqual([-1, 0.5, 1]);
    expect([...(await diffusion.moments(output, x, [10], { clipDenoised: false }).xStart.data())]).toEqual([-3, 0.5, 2]);
    expect([...(await diffusion.moments(output, x, [10], { clipDenoised: 2.5 }).xStart.data())]).toEqual([-2.5, 0.5, 2]);
  });

  it('gives moments of their own, and keeps what the model put out', () => {
    const process = new GaussianDiffusion({ prediction: 'start', variance: 'fixed-small' });
    const [x, output] = [normal([2, 3], 0), normal([2, 3], 1)];
    tf.dispose(process.moments(output, x, [3, 500], { clipDenoised: false }));
    expect([x.isDisposed, output.isDisposed]).toEqual([false, false]);
  });

  it('has a learned range from the posterior variance to β', async () => {
    const diffusion = new GaussianDiffusion({ respacing: '20' });
    const { betas: b, posteriorLogVarianceClipped } = diffusion.tables;
    const t = 7;
    const output = (v: number) => tf.concat([tf.zeros([1, 2]), tf.fill([1, 2], v)], 1);
    const logVariance = async (v: number) => (await diffusion.moments(output(v), tf.zeros([1, 2]), [t]).logVariance.data())[0];
    expect(await logVariance(1)).toBeCloseTo(Math.log(b[t]!), 5);
    expect(await logVariance(-1)).toBeCloseTo(posteriorLogVarianceClipped[t]!, 5);
  });
});

describe('losses', () => {
  const shape = [3, 2, 2, 1];
  const [x0, noise] = [tf.tidy(() => tf.tanh(normal(shape, 3))), normal(shape, 4)];
  const t = [0, 3, 9];

  it('train the variance by the bound, and the prediction by the squared error alone', async () => {
    const diffusion = new GaussianDiffusion({ respacing: '10' });
    const x = diffusion.qSample(x0, t, noise);
    const output = tf.mul(normal([3, 2, 2, 2], 5), 0.5);
    const gradient = (term: 'mse' | 'vb') => tf.grad((y: tf.Tensor) => tf.sum(diffusion.lossTerms(y, x0, x, t, noise)[term]!))(output);
    const largest = async (g: tf.Tensor, channel: number) => (await tf.max(tf.abs(tf.slice(g, [0, 0, 0, channel], [3, 2, 2, 1]))).data())[0]!;
    expect(await largest(gradient('vb'), 0)).toBe(0);
    expect(await largest(gradient('vb'), 1)).toBeGreaterThan(1e-3);
    expect(await largest(gradient('mse'), 0)).toBeGreaterThan(1e-3);
    expect(await largest(gradient('mse'), 1)).toBe(0);
  });

  it('are zero for a model that knows the answer, but for the coding of x₀ at t = 0', async () => {
    // v = −1 is the true posterior's variance
    const perfect: Denoiser = () => tf.concat([noise, tf.fill(shape, -1)], -1);
    const { mse, vb, loss } = new GaussianDiffusion({ respacing: '10' }).trainingLosses(perfect, x0, t, noise);
    expect([...(await mse!.data())]).toEqual([0, 0, 0]);
    const bits = await vb!.data();
    expect(bits[0]).toBeGreaterThan(0);
    expect(Math.abs(bits[1]!)).toBeLessThan(1e-5);
    expect(Math.abs(bits[2]!)).toBeLessThan(1e-5);
    expect([...(await loss.data())]).toEqual([...bits]);
  });

  it('rescale the bound by the number of steps', async () => {
    const output = normal([3, 2, 2, 2], 5);
    const of = (loss: NonNullable<GaussianDiffusionOptions['loss']>) => new GaussianDiffusion({ respacing: '10', loss }).trainingLosses(() => tf.clone(output), x0, t, noise);
    expect(await closest(of('rescaled-mse').vb!, tf.mul(of('mse').vb!, 10 / 1000))).toBeLessThan(1e-5);
    const [kl, rescaled] = [of('kl'), of('rescaled-kl')];
    expect(await closest(rescaled.loss, tf.mul(kl.loss, 10))).toBeLessThan(1e-3);
    expect(kl.mse).toBeUndefined();
    expect(of('mse').loss.shape).toEqual([3]);
  });

  it('leave nothing behind', () => {
    const diffusion = new GaussianDiffusion({ respacing: '10' });
    const output = normal([3, 2, 2, 2], 5);
    const before = tf.memory().numTensors;
    for (const loss of ['mse', 'kl'] as const) {
      const terms = new GaussianDiffusion({ respacing: '10', loss }).trainingLosses(() => tf.clone(output), x0, t, noise);
      tf.dispose(Object.values(terms));
    }
    tf.dispose({ ...diffusion.predict(() => tf.clone(output), x0, t) });
    tf.dispose([diffusion.qSample(x0, t, noise), diffusion.posteriorMean(x0, noise, t), priorBits(diffusion, x0)]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('say what does not fit', () => {
    const diffusion = new GaussianDiffusion();
    expect(() => diffusion.trainingLosses((x) => tf.clone(x), x0, t, noise)).toThrow(ShapeError);
    expect(() => diffusion.trainingLosses((x) => tf.clone(x), x0, t, noise)).toThrow(/learned-range.*expected \[3, 2, 2, 2\]/);
    expect(() => diffusion.qSample(x0, [1, 2], noise)).toThrow(ArgumentError);
    expect(() => diffusion.qSample(x0, [1, 2, 1000], noise)).toThrow(/t is 1000, expected an integer from 0 to 999/);
    expect(() => diffusion.qSample(x0, [1, 2, 0.5], noise)).toThrow(ArgumentError);
  });
});

describe('likelihoods', () => {
  it('of all 256 bins sum to one', async () => {
    const pixels = tf.tensor1d(Array.from({ length: 256 }, (_, i) => (i / 255) * 2 - 1));
    for (const [mean, scale] of [[0.1, 0.3], [-0.9, 0.05], [1.5, 0.2]] as const) {
      const log = discretisedLogLikelihood(pixels, tf.fill([256], mean), tf.fill([256], Math.log(scale)));
      expect((await tf.sum(tf.exp(log)).data())[0]).toBeCloseTo(1, 3);
    }
  });

  it('KL is zero for the same and as computed by hand otherwise', async () => {
    const kl = async (...args: [number, number, number, number]) => (await normalKL(tf.scalar(args[0]), tf.scalar(args[1]), tf.scalar(args[2]), tf.scalar(args[3])).data())[0]!;
    expect(await kl(0.3, -1, 0.3, -1)).toBe(0);
    expect(await kl(1, 0, 0, 0)).toBeCloseTo(0.5, 6);
    expect(await kl(0, Math.log(4), 0, 0)).toBeCloseTo(0.5 * (4 - 1 - Math.log(4)), 6);
  });

  it('the whole bound falls when the model knows the data', async () => {
    const diffusion = new GaussianDiffusion({ respacing: '20', variance: 'fixed-small' });
    const x0 = tf.fill([2, 8], 0.25);
    const knows: Denoiser = (x, t) => tf.tidy(() => diffusion.epsilonFromStart(x, [...t.arraySync()].map((s) => diffusion.timestepMap.indexOf(s)), x0));
    const ignorant: Denoiser = (x) => tf.zerosLike(x);
    const before = tf.memory().numTensors;
    const [good, bad] = [await totalBitsPerDimension(diffusion, knows, x0, { rng: createRng(1) }), await totalBitsPerDimension(diffusion, ignorant, x0, { rng: createRng(1) })];
    expect(good.vb.shape).toEqual([2, 20]);
    expect((await tf.max(good.mse).data())[0]).toBeLessThan(1e-3);
    expect((await tf.max(good.total).data())[0]).toBeLessThan((await tf.min(bad.total).data())[0]! / 10);
    for (const all of [good, bad]) tf.dispose({ ...all });
    // the two read-outs above
    expect(tf.memory().numTensors - before).toBeLessThanOrEqual(3);
    await expect(() => totalBitsPerDimension(diffusion, knows, x0, {})).rejects.toThrow(/rng is missing/);
  });
});

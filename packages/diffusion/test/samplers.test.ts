import '@tensorflow/tfjs-backend-cpu';
import { ArgumentError, CancelledError, createRng } from '@tinyfusion/core';
import { type GaussianDiffusion, type Sampling, ddim, ddimInversion, ddpm, sampleToEnd } from '@tinyfusion/diffusion';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { GaussianToy, toyProcess, useCpu } from './toy.js';

beforeAll(useCpu);

const toy = new GaussianToy(0.5, 0.4);
const samplers = {
  ddpm: (noise: tf.Tensor, signal?: AbortSignal): Sampling => ddpm(toyProcess('12'), toy.epsilon, { noise, rng: createRng(5), signal }),
  ddim: (noise: tf.Tensor, signal?: AbortSignal): Sampling => ddim(toyProcess('12'), toy.epsilon, { noise, signal }),
  'ddim, eta 1': (noise: tf.Tensor, signal?: AbortSignal): Sampling => ddim(toyProcess('12'), toy.epsilon, { noise, eta: 1, rng: createRng(5), signal }),
  ddimInversion: (noise: tf.Tensor, signal?: AbortSignal): Sampling => ddimInversion(toyProcess('12'), toy.epsilon, { noise, signal }),
};

/** Mean and deviation of what comes out: the model is linear, so they go through the steps exactly. */
function expected(process: GaussianDiffusion, eta: number | 'ddpm'): { mean: number; deviation: number } {
  const { alphasCumprod, alphasCumprodPrev, posteriorMeanCoef1, posteriorMeanCoef2, posteriorVariance } = process.tables;
  let [mean, variance] = [0, 1];
  for (let t = process.steps - 1; t >= 0; t--) {
    const [now, next] = [alphasCumprod[t]!, alphasCumprodPrev[t]!];
    // x₀ = toy.mean + gain·(x − √now·toy.mean)
    const gain = (Math.sqrt(now) * toy.deviation ** 2) / (now * toy.deviation ** 2 + 1 - now);
    const added = eta === 'ddpm' ? posteriorVariance[t]! : eta ** 2 * posteriorVariance[t]!;
    const onEpsilon = Math.sqrt((1 - next - added) / (1 - now));
    const [onStart, onX] = eta === 'ddpm' ? [posteriorMeanCoef1[t]!, posteriorMeanCoef2[t]!] : [Math.sqrt(next) - onEpsilon * Math.sqrt(now), onEpsilon];
    mean = onStart * (toy.mean + gain * (mean - Math.sqrt(now) * toy.mean)) + onX * mean;
    variance = (onStart * gain + onX) ** 2 * variance + added;
  }
  return { mean, deviation: Math.sqrt(variance) };
}

describe('the distribution of samples of a known model', () => {
  const count = 4000;
  const process = toyProcess('100');
  for (const [name, eta, run] of [
    ['ddpm', 'ddpm', (noise: tf.Tensor) => ddpm(process, toy.epsilon, { noise, rng: createRng(2) })],
    ['ddim', 0, (noise: tf.Tensor) => ddim(process, toy.epsilon, { noise })],
    ['ddim, eta 0.5', 0.5, (noise: tf.Tensor) => ddim(process, toy.epsilon, { noise, eta: 0.5, rng: createRng(2) })],
    ['ddim, eta 1', 1, (noise: tf.Tensor) => ddim(process, toy.epsilon, { noise, eta: 1, rng: createRng(2) })],
  ] as const) {
    it(`${name}: mean and deviation`, async () => {
      const noise = tf.tensor2d(createRng(1).normal(count), [1, count]);
      const x = await sampleToEnd(run(noise));
      const values = (await x.data()) as Float32Array;
      const mean = values.reduce((a, b) => a + b, 0) / count;
      const deviation = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / count);
      const wanted = expected(process, eta);
      // four standard errors
      expect(Math.abs(mean - wanted.mean)).toBeLessThan((4 * wanted.deviation) / Math.sqrt(count));
      expect(Math.abs(deviation - wanted.deviation)).toBeLessThan((4 * wanted.deviation) / Math.sqrt(2 * count));
      tf.dispose([x, noise]);
    });

    it(`${name}: with all steps that mean and deviation are nearly the data's`, () => {
      const { mean, deviation } = expected(toyProcess(), eta);
      expect(Math.abs(mean - toy.mean)).toBeLessThan(0.005);
      expect(Math.abs(deviation - toy.deviation)).toBeLessThan(0.005);
    });
  }

  it('temperature 0 takes the noise out of ddpm', async () => {
    const noise = tf.tensor2d([[0.3, -1]]);
    const runs = [1, 2].map((seed) => sampleToEnd(ddpm(toyProcess('12'), toy.epsilon, { noise, temperature: 0, rng: createRng(seed) })));
    const [a, b] = await Promise.all(runs);
    expect([...(await a!.data())]).toEqual([...(await b!.data())]);
    tf.dispose([a!, b!, noise]);
  });
});

describe('inversion', () => {
  it('finds the noise that leads back to the data', async () => {
    const data = tf.tensor2d([[0.1, 0.5, 1.2]]);
    const process = toyProcess('400');
    // the last step of inversion assumes ᾱ = 0, which no step of sampling undoes: stop one before it
    let noise: tf.Tensor | undefined;
    for await (const { step, total, x } of ddimInversion(process, toy.epsilon, { noise: data })) {
      if (step < total - 1) continue;
      noise = tf.clone(x);
      break;
    }
    const start = await noise!.data();
    for (const [i, value] of [0.1, 0.5, 1.2].entries()) expect(start[i]).toBeCloseTo(toy.onFlow((value - 0.5) / 0.4, process.timestepMap.at(-1)!), 1);
    const back = await sampleToEnd(ddim(process, toy.epsilon, { noise: noise! }));
    // first order in 400 steps, both ways
    for (const [i, value] of [...(await back.data())].entries()) expect(Math.abs(value - [0.1, 0.5, 1.2][i]!)).toBeLessThan(0.02);
    tf.dispose([data, noise!, back]);
  });

  it('starts where it is told to', async () => {
    const data = tf.zeros([1, 2]);
    const visited: number[] = [];
    const x = await sampleToEnd(ddimInversion(toyProcess('12'), toy.epsilon, { noise: data, from: 9 }), ({ t }) => visited.push(t));
    expect(visited).toEqual([9, 10, 11]);
    expect(() => ddimInversion(toyProcess('12'), toy.epsilon, { noise: data, from: 12 })).toThrow(ArgumentError);
    tf.dispose([x, data]);
  });
});

describe.each(Object.entries(samplers))('%s', (name, run) => {
  it('hands over the last x alone', async () => {
    const noise = tf.ones([2, 2, 2, 3]);
    const before = tf.memory().numTensors;
    const steps: number[] = [];
    const x = await sampleToEnd(run(noise), ({ step, total }) => {
      expect(total).toBe(12);
      steps.push(step);
    });
    expect(steps).toEqual(Array.from({ length: 12 }, (_, i) => i + 1));
    expect(x.shape).toEqual([2, 2, 2, 3]);
    expect(tf.memory().numTensors).toBe(before + 1);
    expect(noise.isDisposed).toBe(false);
    tf.dispose([x, noise]);
  });

  it('frees what it has when left early, cancelled or interrupted by the model', async () => {
    const noise = tf.ones([2, 3]);
    const before = tf.memory().numTensors;
    for await (const { step } of run(noise)) if (step === 3) break;
    expect(tf.memory().numTensors).toBe(before);
    const cancel = new AbortController();
    await expect(sampleToEnd(run(noise, cancel.signal), ({ step }) => step === 3 && cancel.abort())).rejects.toBeInstanceOf(CancelledError);
    expect(tf.memory().numTensors).toBe(before);
    await expect(sampleToEnd(run(noise), ({ step, total }) => {
      if (step === total) throw new RangeError('from the listener');
    })).rejects.toThrow('from the listener');
    expect(tf.memory().numTensors, `${name}: a listener that throws at the last step`).toBe(before);
    noise.dispose();
  });
});

describe('noise', () => {
  it('is drawn once a step, at t = 0 too; ddim with eta 0 draws only from a source', async () => {
    const noise = tf.ones([1, 2]);
    for (const sampler of [ddpm, ddim]) {
      let draws = 0;
      const x = await sampleToEnd(sampler(toyProcess('12'), toy.epsilon, { noise, noiseSource: (shape) => (draws++, tf.zeros([...shape])) }));
      expect(draws).toBe(12);
      x.dispose();
    }
    noise.dispose();
  });

  it('comes from somewhere, or that is an error', () => {
    const noise = tf.ones([1, 2]);
    expect(() => ddpm(toyProcess('12'), toy.epsilon, { noise })).toThrow(/ddpm: rng is missing, expected an Rng/);
    expect(() => ddim(toyProcess('12'), toy.epsilon, { noise, eta: 0.5 })).toThrow(ArgumentError);
    expect(() => ddim(toyProcess('12'), toy.epsilon, { noise, eta: -1 })).toThrow(/eta is -1/);
    noise.dispose();
  });

  it('of the same seed makes the same samples', async () => {
    const noise = tf.ones([1, 4]);
    const values = await Promise.all([7, 7, 8].map(async (seed) => [...(await (await sampleToEnd(ddpm(toyProcess('12'), toy.epsilon, { noise, rng: createRng(seed) }))).data())]));
    expect(values[0]).toEqual(values[1]);
    expect(values[0]).not.toEqual(values[2]);
  });
});

import '@tensorflow/tfjs-backend-cpu';
import { CancelledError, createRng } from '@tinyfusion/core';
import { type AsyncDenoiser, type Denoiser, GaussianDiffusion, type Sampling, Transport, type TransportSampling, classifierFreeGuidance, ddim, ddimInversion, ddpm, dpmSolver, sampleOde, sampleSde, sampleToEnd, unipc } from '@tinyfusion/diffusion';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { GaussianToy, toyProcess, useCpu } from './toy.js';

beforeAll(useCpu);

const toy = new GaussianToy(0.5, 0.4);

/** The same model elsewhere: it reads what it gets after a while. */
const promised =
  (model: Denoiser): AsyncDenoiser =>
  async (x, t) => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    const values = await x.data();
    return tf.tidy(() => model(tf.tensor(values, x.shape), t));
  };

const samplers: Record<string, (noise: tf.Tensor, denoiser: AsyncDenoiser, signal?: AbortSignal) => Sampling> = {
  ddpm: (noise, denoiser, signal) => ddpm(toyProcess('9'), denoiser, { noise, rng: createRng(5), signal }),
  ddim: (noise, denoiser, signal) => ddim(toyProcess('9'), denoiser, { noise, signal }),
  'ddim, eta 1': (noise, denoiser, signal) => ddim(toyProcess('9'), denoiser, { noise, eta: 1, rng: createRng(5), signal }),
  ddimInversion: (noise, denoiser, signal) => ddimInversion(toyProcess('9'), denoiser, { noise, signal }),
  dpmSolver: (noise, denoiser, signal) => dpmSolver(toyProcess(), denoiser, { noise, steps: 9, signal }),
  unipc: (noise, denoiser, signal) => unipc(toyProcess(), denoiser, { noise, steps: 9, signal }),
};

/** A velocity that depends on time and is not linear. */
const velocity: Denoiser = (x, t) => tf.tidy(() => tf.sub(tf.sin(x), tf.mul(x, tf.mul(tf.expandDims(t, 1), 2))));
const transport = new Transport();
const flows: Record<string, (noise: tf.Tensor, denoiser: AsyncDenoiser, signal?: AbortSignal) => TransportSampling> = {
  'ode, euler': (noise, denoiser, signal) => sampleOde(transport, denoiser, { noise, method: 'euler', steps: 5, signal }),
  'ode, rk4 reversed': (noise, denoiser, signal) => sampleOde(transport, denoiser, { noise, method: 'rk4', steps: 5, reverse: true, signal }),
  'ode, dopri5': (noise, denoiser, signal) => sampleOde(transport, denoiser, { noise, method: 'dopri5', steps: 5, relativeTolerance: 1e-4, signal }),
  'sde, euler': (noise, denoiser, signal) => sampleSde(transport, denoiser, { noise, steps: 5, rng: createRng(5), signal }),
  'sde, heun, tweedie': (noise, denoiser, signal) => sampleSde(transport, denoiser, { noise, steps: 5, method: 'heun', lastStep: 'tweedie', rng: createRng(5), signal }),
};
const runs = [...Object.entries(samplers).map(([name, sample]) => [name, toy.epsilon, sample] as const), ...Object.entries(flows).map(([name, sample]) => [name, velocity, sample] as const)];

describe.each(runs)('%s of a model that promises its output', (_, model, of) => {
  const sample = of as (noise: tf.Tensor, denoiser: AsyncDenoiser, signal?: AbortSignal) => AsyncIterable<{ x: tf.Tensor; step: number }>;
  const start = () => tf.tensor2d(createRng(1).normal(12), [2, 6]);

  it('draws what it draws of a synchronous one, to the bit, and leaves nothing behind', async () => {
    const noise = start();
    const before = tf.memory().numTensors;
    const expected = await sampleToEnd(sample(noise, model));
    const x = await sampleToEnd(sample(noise, promised(model)));
    expect(await x.array()).toEqual(await expected.array());
    tf.dispose([x, expected]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('guided too', async () => {
    const noise = start();
    const both: Denoiser = (x, t) => tf.tidy(() => tf.mul(model(x, t), tf.tensor2d([1, 1, 0.5, 0.5], [4, 1])));
    const before = tf.memory().numTensors;
    const expected = await sampleToEnd(sample(noise, classifierFreeGuidance(both, { scale: 3, channels: 'all' })));
    const x = await sampleToEnd(sample(noise, classifierFreeGuidance(promised(both), { scale: 3, channels: 'all' })));
    expect(await x.array()).toEqual(await expected.array());
    tf.dispose([x, expected]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('passes on why the model failed, and leaves nothing behind', async () => {
    const noise = start();
    const before = tf.memory().numTensors;
    let runs = 0;
    const failing: AsyncDenoiser = async (x, t) => {
      if (++runs === 3) throw new Error('the session is gone');
      return promised(model)(x, t);
    };
    await expect(sampleToEnd(sample(noise, classifierFreeGuidance(failing, { scale: 2, channels: 'all' })))).rejects.toThrow('the session is gone');
    expect(tf.memory().numTensors).toBe(before);
  });

  it('may be left early', async () => {
    const noise = start();
    const before = tf.memory().numTensors;
    const stop = new AbortController();
    await expect(sampleToEnd(sample(noise, promised(model), stop.signal), ({ step }) => step === 2 && stop.abort())).rejects.toThrow(CancelledError);
    expect(tf.memory().numTensors).toBe(before);
  });
});

it('refuses an output of too few channels, promised or not', async () => {
  const noise = tf.tensor2d(createRng(1).normal(12), [2, 6]);
  const before = tf.memory().numTensors;
  // this process expects a variance beside the noise
  await expect(sampleToEnd(ddim(new GaussianDiffusion({ respacing: '3' }), promised(toy.epsilon), { noise }))).rejects.toThrow(/shape \[2, 6\], expected \[2, 12\]/);
  expect(tf.memory().numTensors).toBe(before);
});

it('a synchronous model costs no wait: the first step is computed before the generator is left', async () => {
  const noise = tf.tensor2d(createRng(1).normal(12), [2, 6]);
  let runs = 0;
  const counted: Denoiser = (x, t) => {
    runs += 1;
    return toy.epsilon(x, t);
  };
  const sampling = ddim(toyProcess('3'), counted, { noise });
  const first = sampling.next();
  expect(runs).toBe(1);
  await first;
  await sampling.return();
});

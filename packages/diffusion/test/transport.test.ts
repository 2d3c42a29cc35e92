// Data from N(0, s²): every point on a path is normal, so that score, velocity and likelihood are known exactly.
import { ArgumentError, ShapeError, createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { type InterpolantName, Transport, type TransportPrediction, odeLogLikelihood, sampleOde, sampleSde, sampleToEnd } from '../src/index.js';

const S = 0.5;
const paths: InterpolantName[] = ['linear', 'gvp', 'vp'];

/** The exact model for that data. */
function exact(transport: Transport) {
  const { path, prediction } = transport;
  return (x: tf.Tensor, t: tf.Tensor1D): tf.Tensor => {
    const s = t.dataSync()[0]!;
    const score = -1 / (path.alpha(s) ** 2 * S ** 2 + path.sigma(s) ** 2);
    if (prediction === 'score') return tf.mul(x, score);
    if (prediction === 'noise') return tf.mul(x, -path.sigma(s) * score);
    // at t = 0 the two terms of the velocity cancel on paths that start from pure noise
    return tf.mul(x, s === 0 && path.name !== 'vp' ? 0 : path.logAlphaRate(s) + path.scoreWeight(s) * score);
  };
}

const deviation = async (x: tf.Tensor) => Math.sqrt((await tf.mean(tf.square(x)).data())[0]!);

describe('a transport', () => {
  const noise = tf.tensor2d(createRng(0).normal(4000), [2000, 2]);

  for (const path of paths) {
    for (const prediction of ['velocity', 'noise', 'score'] as TransportPrediction[]) {
      it(`${path}, ${prediction}: ODE and SDE take noise to the data`, async () => {
        const transport = new Transport({ path, prediction });
        for (const options of [{ method: 'heun2', steps: 40 }, { method: 'dopri5', steps: 1 }] as const) {
          const x = await sampleToEnd(sampleOde(transport, exact(transport), { noise, ...options }));
          const error = Math.abs((await deviation(x)) / (await deviation(noise)) - S);
          expect(error, options.method).toBeLessThan(options.method === 'dopri5' ? 0.015 : 0.01);
        }
        for (const method of ['euler', 'heun'] as const) {
          const x = await sampleToEnd(sampleSde(transport, exact(transport), { noise, rng: createRng(1), method, steps: 100, form: 'sigma' }));
          expect(await deviation(x), `SDE ${method}`).toBeGreaterThan(S * 0.93);
          expect(await deviation(x), `SDE ${method}`).toBeLessThan(S * 1.07);
        }
      });
    }

    it(`${path}: knows the likelihood of data`, async () => {
      const transport = new Transport({ path });
      const data = tf.tensor2d([0.1, -0.4, 0.9, 0.3], [2, 2]);
      const { logLikelihood } = await odeLogLikelihood(transport, exact(transport), data, { rng: createRng(3), method: 'rk4', steps: 60 });
      const wanted = [0.1 ** 2 + 0.4 ** 2, 0.9 ** 2 + 0.3 ** 2].map((square) => -Math.log(2 * Math.PI * S ** 2) - square / (2 * S ** 2));
      const got = await logLikelihood.data();
      for (const [i, value] of wanted.entries()) expect(Math.abs(got[i]! - value)).toBeLessThan(0.02);
    });
  }

  it('goes back to the noise it came from', async () => {
    const transport = new Transport();
    const x = await sampleToEnd(sampleOde(transport, exact(transport), { noise, method: 'rk4', steps: 30 }));
    const back = await sampleToEnd(sampleOde(transport, exact(transport), { noise: x, method: 'rk4', steps: 30, reverse: true }));
    expect((await tf.max(tf.abs(tf.sub(back, noise))).data())[0]).toBeLessThan(1e-3);
  });

  for (const prediction of ['velocity', 'noise', 'score'] as TransportPrediction[]) {
    it(`vp, ${prediction}: goes back to noise, and knows the likelihood`, async () => {
      const transport = new Transport({ path: 'vp', prediction });
      const data = tf.mul(noise, S);
      for (const method of ['heun2', 'dopri5'] as const) {
        const back = await sampleToEnd(sampleOde(transport, exact(transport), { noise: data, method, steps: 60, reverse: true }));
        expect(Math.abs((await deviation(back)) / (await deviation(noise)) - 1), method).toBeLessThan(0.02);
        const told: number[] = [];
        const one = tf.tensor2d([[0.1, -0.4]]);
        const { logLikelihood } = await odeLogLikelihood(transport, exact(transport), one, { rng: createRng(3), method, steps: 60, onStep: (step) => told.push(step) });
        expect((await logLikelihood.data())[0]!).toBeCloseTo(-Math.log(2 * Math.PI * S ** 2) - 0.17 / (2 * S ** 2), 1);
        expect(told).toEqual(Array.from({ length: 60 }, (_, i) => i + 1));
      }
    });
  }

  it('leaves nothing where the likelihood is left by who is told of it', async () => {
    const transport = new Transport();
    const data = tf.tensor2d([[0.1, -0.4]]);
    const before = tf.memory().numTensors;
    for (const at of [1, 3]) {
      const onStep = (step: number) => {
        if (step === at) throw new Error('enough');
      };
      await expect(odeLogLikelihood(transport, exact(transport), data, { rng: createRng(3), method: 'euler', steps: 3, onStep })).rejects.toThrow('enough');
      expect(tf.memory().numTensors).toBe(before);
    }
  });

  it('refuses settings that make no sense, before anything is computed', async () => {
    const never = () => {
      throw new Error('the model ran');
    };
    expect(() => new Transport({ path: 'straight' as never })).toThrow(/one of linear, gvp, vp/);
    expect(() => new Transport({ lossWeight: 'velocity' })).toThrow(ArgumentError);
    expect(() => new Transport({ sampleEpsilon: 0.7 })).toThrow(/sampleEpsilon/);
    const transport = new Transport();
    expect(() => transport.trainingLosses(never, tf.zeros([1, 2]), [1.5], tf.zeros([1, 2]))).toThrow(/times in \[0, 1\]/);
    const ode = (options: object) => sampleOde(transport, never, { noise, ...options }).next();
    await expect(ode({ steps: 0 })).rejects.toThrow(/steps is 0/);
    await expect(ode({ method: 'heun' })).rejects.toThrow(/one of euler, midpoint, heun2/);
    await expect(ode({ relativeTolerance: -1 })).rejects.toThrow(/relativeTolerance/);
    const sde = (options: object) => sampleSde(transport, never, { noise, rng: createRng(0), ...options }).next();
    await expect(sde({ form: 'sbdm' })).rejects.toThrow(/infinite at t = 0/);
    await expect(sde({ form: 'wild' })).rejects.toThrow(/one of constant, sbdm/);
    await expect(sde({ method: 'heun', lastStep: 'none' })).rejects.toThrow(/divide by zero at t = 1/);
    await expect(sde({ lastStepSize: 0 })).rejects.toThrow(/lastStepSize is 0, expected a number above 0, such as 0\.04/);
    await expect(sde({ lastStep: 'tweedie', lastStepSize: 0 })).rejects.toThrow(/where 'tweedie' would ask for it/);
    const late = sampleSde(new Transport({ prediction: 'noise' }), never, { noise, rng: createRng(0), lastStepSize: 0.9995 });
    await expect(late.next()).rejects.toThrow(/lastStepSize is 0\.9995, expected less than 0\.999/);
    expect(() => transport.trainingLosses((x) => tf.clone(x), tf.zeros([2, 3]), [0.5, 0.5], tf.zeros([1, 3]))).toThrow(ShapeError);
    await expect(sde({ steps: 1 })).rejects.toThrow(/steps is 1/);
    await expect(sde({ rng: undefined })).rejects.toThrow(/an Rng/);
  });

  it('says so where the model puts out what is not finite, and where the solver finds no step', async () => {
    const transport = new Transport();
    const broken = () => tf.fill([2000, 2], Number.NaN);
    const before = tf.memory().numTensors;
    await expect(sampleToEnd(sampleOde(transport, broken, { noise }))).rejects.toMatchObject({ code: 'NUMERIC' });
    await expect(sampleToEnd(sampleOde(transport, exact(transport), { noise, signal: AbortSignal.abort() }))).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(tf.memory().numTensors).toBe(before);
  });

  it('leaves no tensor behind where a run is left early', async () => {
    const transport = new Transport();
    const before = tf.memory().numTensors;
    for await (const { step } of sampleOde(transport, exact(transport), { noise, method: 'euler', steps: 5 })) if (step === 2) break;
    for await (const { step } of sampleOde(transport, exact(transport), { noise, steps: 5 })) if (step === 2) break;
    for await (const { step } of sampleSde(transport, exact(transport), { noise, rng: createRng(0), steps: 5 })) if (step === 2) break;
    expect(tf.memory().numTensors).toBe(before);
  });
});

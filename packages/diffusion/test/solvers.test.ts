import '@tensorflow/tfjs-backend-cpu';
import { ArgumentError } from '@tinyfusion/core';
import { type Sampling, ddim, dpmSolver, sampleToEnd, unipc } from '@tinyfusion/diffusion';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { GaussianToy, toyProcess, useCpu } from './toy.js';

beforeAll(useCpu);

const process = toyProcess();
const toy = new GaussianToy(0.7, 0.5);
const starts = [-1.3, -0.2, 0.6, 1.9];

/** Largest error of x where the run reaches step `at`, from a start on the flow. */
async function errorAt(at: number, run: (noise: tf.Tensor) => Sampling): Promise<number> {
  const noise = tf.tensor2d(starts.map((z) => toy.onFlow(z, 999)), [1, starts.length]);
  let arrived: number[] | undefined;
  let previous = Infinity;
  let x = await noise.data();
  for await (const step of run(noise)) {
    if (step.t === at) arrived = [...x]; // x as it was before this step
    expect(step.t).toBeLessThan(previous);
    previous = step.t;
    x = await step.x.data();
    if (step.step === step.total) step.x.dispose();
  }
  arrived ??= at === -1 ? [...x] : undefined;
  noise.dispose();
  return Math.max(...starts.map((z, i) => Math.abs(arrived![i]! - toy.onFlow(z, at))));
}

describe('order of convergence on the exact flow', () => {
  // 999 = 27·37, so runs of 27 and 111 steps both pass through t = 333
  const measured = async (run: (noise: tf.Tensor, steps: number) => Sampling) => {
    const [coarse, fine] = [await errorAt(333, (noise) => run(noise, 27)), await errorAt(333, (noise) => run(noise, 111))];
    return { coarse, order: Math.log(coarse / fine) / Math.log(111 / 27) };
  };

  it('dpmSolver of order 1 is first order', async () => {
    const { order } = await measured((noise, steps) => dpmSolver(process, toy.epsilon, { noise, steps, order: 1, spacing: 'time' }));
    expect(order).toBeGreaterThan(0.85);
    expect(order).toBeLessThan(1.3);
  });

  it('dpmSolver is second order', async () => {
    const { order, coarse } = await measured((noise, steps) => dpmSolver(process, toy.epsilon, { noise, steps, spacing: 'time' }));
    expect(order).toBeGreaterThan(1.75);
    expect(coarse).toBeLessThan(1e-2);
  });

  it('unipc is third order, until float32 ends it', async () => {
    const { order, coarse } = await measured((noise, steps) => unipc(process, toy.epsilon, { noise, steps, spacing: 'time' }));
    expect(order).toBeGreaterThan(2.3);
    expect(coarse).toBeLessThan(2e-3);
  });
});

describe('whole runs', () => {
  it('reach the data closer than DDIM does, with the same runs of the model', async () => {
    const steps = 10;
    const ofDdim = await errorAt(-1, (noise) => ddim(toyProcess(String(steps)), toy.epsilon, { noise }));
    const ofDpm = await errorAt(-1, (noise) => dpmSolver(process, toy.epsilon, { noise, steps }));
    const ofUnipc = await errorAt(-1, (noise) => unipc(process, toy.epsilon, { noise, steps }));
    expect(ofDpm).toBeLessThan(ofDdim / 4);
    expect(ofUnipc).toBeLessThan(ofDdim / 4);
  });

  it('go through as many different steps as asked for, from the last one on', async () => {
    for (const spacing of ['log-snr', 'time'] as const) {
      for (const steps of [1, 2, 60, 200]) {
        const noise = tf.zeros([1, 1]);
        const visited: number[] = [];
        const x = await sampleToEnd(dpmSolver(process, toy.epsilon, { noise, steps, spacing }), ({ t }) => visited.push(t));
        expect(visited[0]).toBe(999);
        expect(visited).toEqual([...new Set(visited)].toSorted((a, b) => b - a));
        expect(visited).toHaveLength(steps);
        expect(visited.every((t) => t >= 0)).toBe(true);
        tf.dispose([x, noise]);
      }
    }
  });

  it('can use every step but one', async () => {
    const noise = tf.zeros([1, 1]);
    const short = toyProcess('40');
    for (const spacing of ['log-snr', 'time'] as const) {
      const visited: number[] = [];
      const x = await sampleToEnd(dpmSolver(short, (z) => tf.clone(z), { noise, steps: 39, spacing }), ({ t }) => visited.push(t));
      expect(new Set(visited).size).toBe(39);
      x.dispose();
    }
    noise.dispose();
  });

  it('run the model once a step and leave one tensor', async () => {
    for (const solver of [dpmSolver, unipc]) {
      const noise = tf.ones([2, 3]);
      const before = tf.memory().numTensors;
      let runs = 0;
      const x = await sampleToEnd(solver(process, (z, t) => (runs++, toy.epsilon(z, t)), { noise, steps: 7 }));
      expect(runs).toBe(7);
      expect(x.shape).toEqual([2, 3]);
      expect(tf.memory().numTensors).toBe(before + 1);
      tf.dispose([x, noise]);
    }
  });

  it('leave nothing when stopped early, or when the model throws', async () => {
    for (const solver of [dpmSolver, unipc]) {
      const noise = tf.ones([2, 3]);
      const before = tf.memory().numTensors;
      for await (const { step } of solver(process, toy.epsilon, { noise, steps: 9 })) if (step === 4) break;
      expect(tf.memory().numTensors).toBe(before);
      let runs = 0;
      const failing = solver(process, (z, t) => {
        if (++runs === 4) throw new RangeError('no more');
        return toy.epsilon(z, t);
      }, { noise, steps: 9 });
      await expect(sampleToEnd(failing)).rejects.toThrow('no more');
      expect(tf.memory().numTensors).toBe(before);
      noise.dispose();
    }
  });

  it('need a number of steps that the process has', () => {
    const noise = tf.ones([1, 1]);
    for (const steps of [0, 1000, 2.5]) {
      expect(() => dpmSolver(process, toy.epsilon, { noise, steps })).toThrow(ArgumentError);
      expect(() => unipc(process, toy.epsilon, { noise, steps })).toThrow(ArgumentError);
    }
    expect(() => dpmSolver(process, toy.epsilon, { noise, order: 3 as 2 })).toThrow(/order is 3, expected 1 or 2/);
    noise.dispose();
  });
});

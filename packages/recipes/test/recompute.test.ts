import { createRng, restoreRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { injectLora } from '@tinyfusion/lora';
import { DiT, type DiTConfig, loadDiT, saveModel } from '@tinyfusion/models';
import { parseSafetensors } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { type LatentDataset, type Objective, distill, gaussianObjective, learnMasks, shallowCopy, train } from '../src/index.js';

const config: DiTConfig = { inputSize: 8, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 4, numHeads: 2, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };

/** Latents drawn afresh. */
const data: LatentDataset = {
  shape: [8, 8, 4],
  labels: Int32Array.from({ length: 12 }, (_, i) => i % 3),
  batches: (batchSize, from) => {
    const rng = 'epochStart' in from ? restoreRng(from.epochStart) : from;
    return {
      next: () => ({ latents: tf.tensor4d(rng.normal(batchSize * 256), [batchSize, 8, 8, 4]), labels: tf.tensor1d(rng.integers(0, 3, batchSize), 'int32') }),
      position: () => ({ epochStart: rng.state(), taken: 0 }),
    };
  },
};

/** A model each of whose weights matters. */
function model(): DiT {
  const dit = new DiT(config, { init: createRng(0) });
  const rng = createRng(1);
  for (const p of dit.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.tensor(rng.normal(p.size).map((v) => 0.1 * v), p.shape))));
  return dit;
}

const valuesOf = async (dit: DiT): Promise<number[]> => (await Promise.all(dit.parameters().map(async (p) => [...(await p.data())]))).flat();
const apart = (a: readonly number[], b: readonly number[]): number => Math.max(...a.map((v, i) => Math.abs(v - b[i]!)));

/** The objective of a DiT, and the most bytes that there were when it was asked what an output costs. */
function watched(): { objective: Objective<DiT>; most: () => number } {
  const objective = gaussianObjective();
  const base = tf.memory().numBytes;
  let most = 0;
  const noted = <A extends unknown[], R>(f: (...args: A) => R) => (...args: A): R => {
    most = Math.max(most, tf.memory().numBytes - base);
    return f(...args);
  };
  return {
    objective: {
      draw: (...args) => {
        const draw = objective.draw(...args);
        return { ...draw, terms: noted(draw.terms), distillation: noted(draw.distillation) };
      },
    },
    most: () => most,
  };
}

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

describe('recipes that compute blocks a second time', () => {
  it('distil to the same student in less memory, a teacher keeping nothing in either', async () => {
    const teacher = model();
    const run = async (recompute: boolean, beta = 0) => {
      const student = await shallowCopy(teacher, [0, 1, 2, 3]);
      const { objective, most } = watched();
      await distill(student, teacher, data, { steps: 2, batchSize: 8, beta, seed: 0, recompute, objective });
      return { values: await valuesOf(student), most: most() };
    };
    const [plain, less] = [await run(false), await run(true)];
    expect(apart(plain.values, less.values)).toBeLessThan(1e-4);
    console.log(`distil: ${(plain.most / 1e6).toFixed(2)} MB, recomputed ${(less.most / 1e6).toFixed(2)} MB`);
    expect(less.most).toBeLessThan(plain.most / 2);
    expect(apart((await run(false, 0.01)).values, (await run(true, 0.01)).values)).toBeLessThan(1e-4);
  });

  it('learn the same masks in less memory', async () => {
    const teacher = model();
    const run = async (recompute: boolean, per: 'sample' | 'batch') => {
      const { objective, most } = watched();
      const { losses, decision } = await learnMasks(teacher, data, { steps: 3, batchSize: 8, seed: 0, per, recompute, objective });
      return { losses: losses.map(([, loss]) => loss), decision, most: most() };
    };
    for (const per of ['sample', 'batch'] as const) {
      const [plain, less] = [await run(false, per), await run(true, per)];
      expect(apart(plain.losses, less.losses)).toBeLessThan(1e-4);
      expect(less.decision.kept).toEqual(plain.decision.kept);
      console.log(`masks a ${per}: ${(plain.most / 1e6).toFixed(2)} MB, recomputed ${(less.most / 1e6).toFixed(2)} MB`);
      expect(less.most).toBeLessThan(plain.most / 2);
    }
  });

  it('train the same model', async () => {
    const [plain, less] = [await train(data, { config, steps: 2, batchSize: 4, seed: 0 }), await train(data, { config, steps: 2, batchSize: 4, seed: 0, recompute: true })];
    expect(apart(await valuesOf(plain), await valuesOf(less))).toBeLessThan(1e-4);
  });
});

it('packed weights are not trained in silence; adapters on them are', async () => {
  const teacher = model();
  const packed = await loadDiT(await parseSafetensors(await saveModel(teacher)), { dtype: 'I8' });
  const short = { steps: 1, batchSize: 2, seed: 0 };
  const before = tf.memory().numTensors;
  await expect(distill(packed, teacher, data, short)).rejects.toThrow('distill: student is "packed as I8", expected weights in float32, as packed ones are not trained: load it as F32, or train adapters on it');
  await expect(learnMasks(packed, data, { ...short, update: 'full' })).rejects.toThrow('learnMasks: model is "packed as I8", expected weights in float32');
  expect(tf.memory().numTensors).toBe(before);
  await learnMasks(packed, data, short);
  const adapters = injectLora(packed, { init: createRng(0), rank: 2 });
  await distill(packed, teacher, data, short);
  adapters.remove();
});

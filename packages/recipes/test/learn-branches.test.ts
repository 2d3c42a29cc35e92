import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { DiT, type DiTConfig } from '@tinyfusion/models';
import { type LatentDataset, type LearnBranchesOptions, learnBranches, learnMasks, shallowCopy } from '@tinyfusion/recipes';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

const config: DiTConfig = { inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 4, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };
const teacherOf = (): DiT => new DiT(config, { init: createRng(1) });

const latents: LatentDataset = {
  shape: [4, 4, 4],
  labels: Int32Array.of(0, 1, 2),
  batches: (batchSize, from) => {
    const rng = 'epochStart' in from ? createRng(0) : from;
    return {
      next: () => ({ latents: tf.tensor4d(rng.normal(batchSize * 64), [batchSize, 4, 4, 4]), labels: tf.tensor1d(rng.integers(0, 3, batchSize), 'int32') }),
      position: () => ({ epochStart: rng.state(), taken: 0 }),
    };
  },
};

/** Half of a block's time is its own, beside both branches. */
const costs = { unit: 'ms' as const, rest: 1, blocks: [4, 4, 4, 4], attention: [1, 1, 1, 1], mlp: [1, 1, 1, 1] };
const options: LearnBranchesOptions = { faster: 1.4, steps: 2, batchSize: 2, seed: 0, costs };

describe('branches within a budget', () => {
  it('may cost a block with all that it has, as that is what surgery removes', async () => {
    const teacher = teacherOf();
    // without a branch, blocks that stayed would take 9 of 17 ms: but they go, and one with a branch takes 3
    for (const faster of [2, 4]) {
      const { decision, faster: promised } = await learnBranches(teacher, latents, { ...options, faster });
      expect(promised).toBeGreaterThanOrEqual(faster);
      expect(promised).toBeLessThan(1.31 * faster); // the next that a branch more would make is slower than was asked
      const { attention, mlp } = decision.droppedBranches;
      const kept = [0, 1, 2, 3].filter((i) => !attention.includes(i) || !mlp.includes(i));
      expect(kept.length).toBeGreaterThan(0);
      const left = kept.reduce((sum, i) => sum + 4 - (attention.includes(i) ? 1 : 0) - (mlp.includes(i) ? 1 : 0), 1);
      expect(promised).toBeCloseTo(17 / left, 10);
    }
    await expect(learnBranches(teacher, latents, { ...options, faster: 4.3 })).rejects.toThrow(/faster is 4\.3, expected at most 4\.25: with the cheapest branch alone a forward pass still takes 24 %/);
    teacher.dispose();
  });

  it('are timed at the end, beside the whole model; blocks that do the same are priced alike', async () => {
    const teacher = teacherOf();
    const tasks = new Set<string>();
    const { costs: measured, measured: speed } = await learnBranches(teacher, latents, { ...options, costs: undefined as never, faster: 1.05, onProgress: ({ task }) => tasks.add(task) });
    for (const values of [measured.blocks, measured.attention!, measured.mlp!]) expect(new Set(values).size).toBe(1);
    expect([...tasks]).toEqual(['block costs', 'learn branches', 'speed']);
    expect(speed!.faster).toBeGreaterThan(0);
    expect(speed!.quartiles[0]).toBeLessThanOrEqual(speed!.quartiles[1]);
    expect((await learnBranches(teacher, latents, options)).measured).toBeUndefined();
    teacher.dispose();
  });

  it('are refused with the reason where a block has lost one, or a rate would climb the loss', async () => {
    const teacher = teacherOf();
    const thin = await shallowCopy(teacher, [0, 1, 3], { branches: { attention: [1], mlp: [3] } });
    const before = tf.memory().numTensors;
    await expect(learnBranches(thin, latents, options)).rejects.toThrow(/model is "block 1 has its MLP alone, block 2 has its attention alone", expected a model whose blocks all have attention and MLP; learn branches of the model that it was cut from/);
    for (const rates of [{ lr: -1 }, { gateLr: -1 }, { lr: Number.NaN }]) {
      await expect(learnBranches(teacher, latents, { ...options, ...rates })).rejects.toThrow(/r is (-1|NaN), expected a finite number from 0/i);
      await expect(learnMasks(teacher, latents, { steps: 1, seed: 0, ...rates })).rejects.toThrow(/r is (-1|NaN), expected a finite number from 0/i);
    }
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([...thin.parameters(), ...teacher.parameters()]);
  });
});

import { ArgumentError, createRng, restoreRng } from '@tinyfusion/core';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { useBackend } from '@tinyfusion/kernels';
import { DiT, type DiTConfig } from '@tinyfusion/models';
import { type DistillOptions, type LatentDataset, type LearnBranchesOptions, type LearnMasksOptions, chooseByBlockError, chooseByBlockInfluence, chooseByCka, chooseBySensitivity, chooseByTaylor, distill, learnBranches, learnMasks, sampleImages, shallowCopy, train } from '@tinyfusion/recipes';
import { AutoencoderKL } from '@tinyfusion/models';
import { type StateDict, parseSafetensors, safetensorsOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

const config: DiTConfig = { inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 4, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };

/** Latents drawn afresh, with a position that counts batches. */
function toyLatents(): LatentDataset {
  const labels = Int32Array.from({ length: 12 }, (_, i) => i % 3);
  return {
    shape: [4, 4, 4],
    labels,
    batches: (batchSize, from) => {
      const rng = 'epochStart' in from ? restoreRng(from.epochStart) : from;
      return {
        next: () => ({ latents: tf.tensor4d(rng.normal(batchSize * 64), [batchSize, 4, 4, 4]), labels: tf.tensor1d(rng.integers(0, 3, batchSize), 'int32') }),
        position: () => ({ epochStart: rng.state(), taken: 0 }),
      };
    },
  };
}

async function values(dit: DiT): Promise<number[]> {
  const all: number[] = [];
  for (const parameter of dit.parameters()) all.push(...(await parameter.data()));
  return all;
}

describe('a run', () => {
  it('that is stopped and resumed ends where one that is not stopped does, to the bit', async () => {
    const options = { config, steps: 6, batchSize: 4, seed: 5 };
    const whole = await train(toyLatents(), options);
    let saved: Uint8Array | undefined;
    const stop = new AbortController();
    const part = train(toyLatents(), {
      ...options,
      signal: stop.signal,
      checkpoint: {
        every: 3,
        save: async (_dit, step, run) => {
          if (step === 3) saved = await safetensorsOf(run);
          stop.abort();
        },
      },
    });
    await expect(part).rejects.toMatchObject({ code: 'CANCELLED' });
    const resumed = await train(toyLatents(), { ...options, resume: await parseSafetensors(saved!) });
    expect(await values(resumed)).toEqual(await values(whole));
  });

  it('of recovery or mask learning is resumed to the bit too, curves and decisions with it', async () => {
    const before = tf.memory().numTensors;
    const teacher = new DiT(config, { init: createRng(1) });
    for (const p of teacher.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.randomNormal(p.shape, 0, 0.05, 'float32', 4))));
    const recover = async (options: Partial<DistillOptions<DiT>>) => {
      const student = await shallowCopy(teacher, [0, 2]);
      try {
        return { curves: await distill(student, teacher, toyLatents(), { steps: 9, batchSize: 4, seed: 2, ...options }), values: await values(student) };
      } finally {
        student.dispose();
      }
    };
    const learn = async (options: Partial<LearnMasksOptions<DiT>>) => {
      const { decision, history, losses } = await learnMasks(teacher, toyLatents(), { steps: 9, batchSize: 4, seed: 2, lr: 1e-2, gateLr: 1e-2, ...options });
      return { decision, rows: history.rows, losses };
    };
    // the times of blocks are measured once: a run that goes on has them
    const costs = { unit: 'ms', rest: 1, blocks: [3, 3, 3, 3], attention: [2, 2, 2, 2], mlp: [1, 1, 1, 1] } as const;
    const branches = async (options: Partial<LearnBranchesOptions>) => ({ ...(await learnBranches(teacher, toyLatents(), { steps: 9, batchSize: 4, seed: 2, faster: 1.6, lr: 1e-2, ...(options.resume === undefined ? { costs: { ...costs, blocks: [...costs.blocks], attention: [...costs.attention], mlp: [...costs.mlp] } } : {}), ...options })), measured: 'another time' });
    for (const run of [recover, learn, (options: object) => learn({ per: 'batch', estimator: 'score-function', ...options }), branches]) {
      const whole = await run({});
      let saved: Uint8Array | undefined;
      let last = 0;
      const stop = new AbortController();
      const keep = async (_: unknown, step: number, run: StateDict): Promise<void> => {
        [saved, last] = [await safetensorsOf(run), step];
        if (step === 4) setTimeout(() => stop.abort());
      };
      await expect(run({ signal: stop.signal, checkpoint: { every: 4, save: keep } })).rejects.toMatchObject({ code: 'CANCELLED' });
      // what was done after the last save is saved when the run is cancelled
      expect(last).toBeGreaterThan(3);
      expect(await run({ resume: await parseSafetensors(saved!) })).toEqual(whole);
    }
    teacher.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('in parts gives the same gradients, and takes to them where memory does not do', async () => {
    const before = tf.memory().numTensors;
    const whole = await train(toyLatents(), { config, steps: 3, batchSize: 6, seed: 5 });
    const forward = DiT.prototype.forward;
    const seen: number[] = [];
    // a device that holds two samples and no more
    DiT.prototype.forward = function (this: DiT, x, ...rest) {
      seen.push(x.shape[0]!);
      if (x.shape[0]! > 2) throw new RangeError('Array buffer allocation failed');
      return forward.call(this, x, ...rest);
    };
    try {
      const parts = await train(toyLatents(), { config, steps: 3, batchSize: 6, seed: 5 });
      // 6, then 3 + 3, then 1 + 2 + 1 + 2 in every step
      expect(seen).toEqual([6, 3, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2]);
      const [a, b] = [await values(whole), await values(parts)];
      expect(Math.max(...a.map((v, i) => Math.abs(v - b[i]!)))).toBeLessThan(1e-5);
      parts.dispose();
    } finally {
      DiT.prototype.forward = forward;
    }
    whole.dispose();
    expect(tf.memory().numTensors).toBeLessThanOrEqual(before + 20); // what tfjs leaves behind of two steps that threw
  });

  it('learns masks, cuts, recovers and samples, and leaves no tensor behind', async () => {
    const teacher = new DiT(config, { init: createRng(1) });
    const vae = new AutoencoderKL({ inChannels: 1, channels: 8, channelMultipliers: [1, 1], numResBlocks: 1, latentChannels: 4, groups: 4, scalingFactor: 1 }, { init: createRng(2) });
    const before = await values(teacher);
    const once = async (): Promise<void> => {
      const { decision, history, losses } = await learnMasks(teacher, toyLatents(), { groups: '1:2', steps: 3, batchSize: 4, seed: 0 });
      expect(decision.kept.length).toBe(2);
      expect(history.rows.length).toBe(3);
      expect(losses.every(([, loss]) => Number.isFinite(loss))).toBe(true);
      const student = await shallowCopy(teacher, decision.kept);
      expect(student.blocks.length).toBe(2);
      const curves = await distill(student, teacher, toyLatents(), { steps: 3, batchSize: 4, seed: 0 });
      expect(curves.mse.length).toBe(3);
      for await (const images of sampleImages(student, vae, [0, 1, 2], { steps: 3, seed: 0, batchSize: 2 })) {
        expect(images.shape.slice(1)).toEqual([8, 8, 1]);
        images.dispose();
      }
      student.dispose();
    };
    await once();
    const tensors = tf.memory().numTensors;
    await once();
    expect(tf.memory().numTensors).toBe(tensors);
    expect(await values(teacher), 'the teacher is as it was').toEqual(before);
  });

  it.each(['straight-through', 'score-function'] as const)('learns with one mask a step by %s, computing the kept blocks alone', async (estimator) => {
    const teacher = new DiT(config, { init: createRng(1) });
    const once = async () => learnMasks(teacher, toyLatents(), { groups: '1:2', steps: 4, batchSize: 4, per: 'batch', estimator, seed: 0 });
    const { decision, losses } = await once();
    expect(decision.kept.length).toBe(2);
    expect(losses.every(([, loss]) => Number.isFinite(loss))).toBe(true);
    const tensors = tf.memory().numTensors;
    expect((await once()).losses).toEqual(losses);
    expect(tf.memory().numTensors).toBe(tensors);
    teacher.dispose();
  });

  it('starts from another criterion’s scores, and ends where the decision is sure', async () => {
    const teacher = new DiT(config, { init: createRng(1) });
    const options = { groups: '1:2', steps: 200, batchSize: 2, update: 'frozen', gateLr: 0, seed: 0 } as const;
    const warmStart = { scores: [0, 3, 5, 1], strength: 0.05 };
    const seen: string[] = [];
    let saved: Uint8Array | undefined;
    const ending = { ...options, warmStart, stop: { confidence: 0.9, stableSteps: 10 } };
    const { decision, history, losses } = await learnMasks(teacher, toyLatents(), { ...ending, onProgress: ({ step, total }) => seen.push(`${step}/${total}`), checkpoint: { every: 100, save: async (_, __, run) => void (saved = await safetensorsOf(run)) } });
    expect(decision.kept).toEqual([1, 2]);
    expect(losses.length).toBe(history.rows.at(-1)!.step);
    expect(losses.length).toBeLessThan(20);
    expect(seen.at(-1)).toBe(`${losses.length}/${losses.length}`);
    // there is nothing to go on with
    expect(await learnMasks(teacher, toyLatents(), { ...ending, resume: await parseSafetensors(saved!) })).toEqual({ decision, history, losses });
    await expect(learnMasks(teacher, toyLatents(), { ...options, warmStart: { scores: [1] } })).rejects.toThrow('one for each of the 4 layers');
    teacher.dispose();
  });

  it('learns which branches to keep for a model as much faster as asked, which is recovered and sampled', async () => {
    const teacher = new DiT(config, { init: createRng(1) });
    const vae = new AutoencoderKL({ inChannels: 1, channels: 8, channelMultipliers: [1, 1], numResBlocks: 1, latentChannels: 4, groups: 4, scalingFactor: 1 }, { init: createRng(2) });
    const costs = { unit: 'ms', rest: 1, blocks: [3, 3, 3, 3], attention: [2, 2, 2, 2], mlp: [1, 1, 1, 1] } as const;
    const options = { steps: 3, batchSize: 4, costs: { ...costs, blocks: [...costs.blocks], attention: [...costs.attention], mlp: [...costs.mlp] }, seed: 0 };
    const { decision, faster, losses } = await learnBranches(teacher, toyLatents(), { ...options, faster: 1.6 });
    expect(faster).toBeGreaterThanOrEqual(1.6);
    expect(losses.length).toBe(3);
    expect(decision.cost).toBeLessThanOrEqual(13 / 1.6 - 1);
    await expect(learnBranches(teacher, toyLatents(), { ...options, faster: 20 })).rejects.toThrow('at most 6.50');
    const { attention, mlp } = decision.droppedBranches;
    const kept = [0, 1, 2, 3].filter((i) => !attention.includes(i) || !mlp.includes(i));
    const student = await shallowCopy(teacher, kept, { branches: { attention: attention.filter((i) => kept.includes(i)), mlp: mlp.filter((i) => kept.includes(i)) } });
    const curves = await distill(student, teacher, toyLatents(), { steps: 2, batchSize: 2, seed: 0 });
    expect(curves.loss.length).toBe(2);
    for await (const images of sampleImages(student, vae, [0], { steps: 2, seed: 0 })) images.dispose();
    student.dispose();
    // on the device at hand: blocks as small as these may take no time beside what does not shrink
    const measured = await learnBranches(teacher, toyLatents(), { ...options, costs: undefined as never, faster: 1.05 }).catch((error: unknown) => error);
    if (measured instanceof ArgumentError) expect(measured.message).toMatch(/^faster is 1\.05, expected at most 1\.0\d: with the cheapest branch alone a forward pass still takes \d+ % of its time/);
    else expect(measured).toMatchObject({ costs: { attention: { length: 4 } } });
    teacher.dispose();
  });

  it('names the layer whose feature loss explodes', async () => {
    const [student, teacher] = [new DiT(config, { init: createRng(1) }), new DiT(config, { init: createRng(1) })];
    // each step the teacher moves further away
    const broken = toyLatents();
    let scale = 1;
    const moving: LatentDataset = { ...broken, batches: (n, from) => {
      const inner = broken.batches(n, from);
      return { ...inner, next: () => {
        scale *= 1.3;
        tf.tidy(() => teacher.pos_embed.assign(tf.fill(teacher.pos_embed.shape, scale)));
        return inner.next();
      } };
    } };
    await expect(distill(student, teacher, moving, { steps: 400, batchSize: 2, sigmas: Infinity, seed: 0 })).rejects.toMatchObject({ code: 'FEATURE_EXPLOSION', message: expect.stringMatching(/student block 0 against teacher block 0.*mask massive activations/) });
  });

  it('chooses layers by every criterion, alike for the same seed, and leaves no tensor behind', async () => {
    const teacher = new DiT(config, { init: createRng(1) });
    // blocks of a fresh model do nothing: give them something to do
    for (const [name, p] of teacher.namedParameters()) if (name.includes('adaLN')) tf.tidy(() => p.assign(tf.tensor(createRng(name.length).normal(p.size).map((v) => 0.3 * v), p.shape)));
    for (const choose of [chooseByBlockInfluence, chooseByBlockError, chooseBySensitivity, chooseByTaylor, chooseByCka]) {
      const first = await choose(teacher, toyLatents(), { count: 2, images: 8, seed: 3 });
      const tensors = tf.memory().numTensors;
      expect(await choose(teacher, toyLatents(), { count: 2, images: 8, seed: 3 })).toEqual(first);
      expect(tf.memory().numTensors).toBe(tensors);
      expect(first.kept.length).toBe(2);
    }
    teacher.dispose();
  });

  it('leaves no tensor behind in fifty training steps', async () => {
    const dit = new DiT(config, { init: createRng(3) });
    const diffusion = new GaussianDiffusion();
    const rng = createRng(4);
    const step = (): void => {
      const { value, grads } = tf.variableGrads(() => {
        const x0 = tf.tensor4d(rng.normal(128), [2, 4, 4, 4]);
        const noise = tf.tensor4d(rng.normal(128), [2, 4, 4, 4]);
        return tf.mean(diffusion.trainingLosses((x, t) => dit.forward(x as tf.Tensor4D, t, tf.tensor1d([0, 1], 'int32')), x0, [5, 0], noise).loss);
      }, dit.parameters());
      tf.dispose([value, grads]);
    };
    step();
    const before = tf.memory().numTensors;
    for (let i = 0; i < 50; i++) step();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('ends with the reason where the loss stays not finite', async () => {
    const dit = new DiT(config, { init: createRng(6) });
    const broken = toyLatents();
    const latents: LatentDataset = { ...broken, batches: (n, from) => ({ ...broken.batches(n, from), next: () => ({ latents: tf.fill([n, 4, 4, 4], Number.NaN) as tf.Tensor4D, labels: tf.zeros([n], 'int32') as tf.Tensor1D }) }) };
    await expect(distill(dit, dit, latents, { steps: 100, batchSize: 2, seed: 0 })).rejects.toMatchObject({ code: 'DIVERGED' });
  });
});

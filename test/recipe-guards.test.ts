// What recipes refuse before anything is made, what ends a run that goes wrong, and that nothing is left of either.
import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { AutoencoderKL, DiT, type DiTConfig } from '@tinyfusion/models';
import { type DistillOptions, type LearnMasksOptions, type TrainOptions, distill, gridPng, latentDataset, learnBranches, learnMasks, sampleImages, train } from '@tinyfusion/recipes';
import { lossAndGradients } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

const config: DiTConfig = { inputSize: 4, patchSize: 2, inChannels: 2, hiddenSize: 32, depth: 4, numHeads: 4, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 10, learnSigma: true };
const data = latentDataset(Float32Array.from(createRng(3).normal(64 * 32)), [4, 4, 2], Int32Array.from({ length: 64 }, (_, i) => i % 10));

/** A model whose blocks do something: fresh ones are the identity. */
function made(changes: Partial<DiTConfig>, seed: number): DiT {
  const model = new DiT({ ...config, ...changes }, { init: createRng(seed) });
  let noise = 100 + seed;
  for (const [name, weight] of model.namedParameters()) if (!name.includes('embed')) tf.tidy(() => weight.assign(tf.randomNormal(weight.shape, 0, 0.1, 'float32', noise++)));
  return model;
}

/** A recovery of two blocks from four, after which the same tensors are there as before. */
async function recover(options: Partial<DistillOptions<DiT>>, { student: ofStudent = {}, teacher: ofTeacher = {}, before = () => {} }: { student?: Partial<DiTConfig>; teacher?: Partial<DiTConfig>; before?: (student: DiT, teacher: DiT) => void } = {}): Promise<{ losses: number[]; error?: Error & { code?: string } }> {
  const tensors = tf.memory().numTensors;
  const [student, teacher] = [made({ depth: 2, ...ofStudent }, 1), made(ofTeacher, 2)];
  before(student, teacher);
  try {
    const { loss } = await distill(student, teacher, data, { steps: 3, batchSize: 8, seed: 0, ...options });
    return { losses: loss.map(([, value]) => value) };
  } catch (error) {
    return { losses: [], error: error as Error };
  } finally {
    student.dispose();
    teacher.dispose();
    expect(tf.memory().numTensors, 'tensors that are left').toBe(tensors);
  }
}

describe('recovery', () => {
  it.each([
    [{ steps: 0 }, /steps is 0, expected a positive integer/],
    [{ batchSize: 0 }, /batchSize is 0/],
    [{ lr: -1 }, /lr is -1, expected a finite number above 0/],
    [{ lr: Number.NaN }, /lr is NaN/],
    [{ alpha: 3 }, /alpha is 3, expected a number from 0 to 1/],
    [{ alpha: Number.NaN }, /alpha is NaN/],
    [{ beta: -1 }, /beta is -1, expected a finite number from 0/],
    [{ sigmas: -1 }, /sigmas is -1, expected more than 0; Infinity for no mask/],
    [{ mode: 'union' as 'official' }, /mode is "union", expected one of 'official', 'intersection'/],
    [{ decay: 'exp' as 'linear' }, /decay is "exp", expected one of 'linear', 'cosine', 'constant'/],
    [{ guard: Number.NaN }, /factor is NaN, expected more than 1/],
    [{ emaDecay: 2 }, /emaDecay is 2, expected a number in \[0, 1\)/],
    [{ layerMap: [[0, 9]] as const }, /layerMap is \[0, 9\], expected pairs of a student's layer from 0 to 1 and a teacher's from 0 to 3/],
  ])('refuses %j', async (options, message) => {
    const { error } = await recover(options);
    expect(error).toMatchObject({ code: 'ARGUMENT', message: expect.stringMatching(message) as string });
  });

  it.each([
    ['another width', { teacher: { hiddenSize: 64 } }, /width of the student's layer 0 is 32, expected 64, that of the teacher's layer 1/],
    ['other classes', { teacher: { numClasses: 5 } }, /student's numClasses is 10, expected 5/],
    ['other latents than the data', { student: { inChannels: 4 }, teacher: { inChannels: 4 } }, /data is "4×4×2", expected latents of 4×4×4/],
    ['no variance in the student', { student: { learnSigma: false } }, /student's learnSigma is false, expected true/],
    ['no variance in the teacher', { teacher: { learnSigma: false } }, /student's learnSigma is true, expected false/],
  ])('refuses a pair with %s', async (_name, models, message) => {
    expect((await recover({}, models)).error).toMatchObject({ code: 'ARGUMENT', message: expect.stringMatching(message) as string });
  });

  it('takes a teacher of another width where no features are followed', async () => {
    const { losses, error } = await recover({ beta: 0 }, { teacher: { hiddenSize: 64 } });
    expect([error, losses.length]).toEqual([undefined, 3]);
  });

  it.each([0.1, 1])('that explodes in its first steps, at a learning rate of %s, ends with the name of the layer', async (lr) => {
    const { error } = await recover({ steps: 150, lr, beta: 1, sigmas: Infinity });
    expect(error).toMatchObject({ code: 'FEATURE_EXPLOSION', message: expect.stringMatching(/at step [3-9] the feature loss of student block \d against teacher block \d is \S+e\+\d+, usually 0\.\d+/) as string });
  });

  it('that learns fast, but does not explode, is left alone', async () => {
    const { losses, error } = await recover({ steps: 40, lr: 0.03, beta: 1, sigmas: Infinity });
    expect([error, losses.length]).toEqual([undefined, 40]);
    expect(losses.at(-1)).toBeLessThan(losses[0]!);
  });

  it('whose losses are not finite names the first layer that was not', async () => {
    const huge = (_: DiT, teacher: DiT): void => {
      for (const [name, weight] of teacher.namedParameters()) if (name === 'blocks.3.mlp.fc2.weight') tf.tidy(() => weight.assign(tf.mul(weight, 1e25)));
    };
    const { error } = await recover({ steps: 40, sigmas: Infinity }, { before: huge });
    expect(error).toMatchObject({ code: 'DIVERGED', message: expect.stringMatching(/not finite in 20 steps in a row, up to step 20 of 40; at step 1 the feature loss of student block 1 against teacher block 3 is Infinity/) as string });
  });

  it('does not end with a step that is not finite as if all were well', async () => {
    let saves = 0;
    const save = async (): Promise<void> => void (saves += 1);
    const { error } = await recover({ steps: 3, checkpoint: { every: 1, save } }, { before: (student) => tf.tidy(() => student.parameters()[0]!.assign(tf.fill(student.parameters()[0]!.shape, Number.NaN))) });
    expect(error).toMatchObject({ code: 'DIVERGED', message: expect.stringMatching(/not finite in 3 steps in a row, up to step 3 of 3/) as string });
    expect(saves).toBe(2);
  });

  it('leaves nothing where a step throws, wherever it does', async () => {
    const forward = DiT.prototype.forward;
    for (const at of [1, 2, 3, 4]) {
      let calls = 0;
      DiT.prototype.forward = function (this: DiT, ...args) {
        const out = forward.apply(this, args);
        if (++calls === at) throw new TypeError(`call ${at}`);
        return out;
      };
      try {
        expect((await recover({})).error).toMatchObject({ message: `call ${at}` });
      } finally {
        DiT.prototype.forward = forward;
      }
    }
  });
});

it.each([
  [{ steps: 0 }, /steps is 0/],
  [{ lr: -1 }, /lr is -1, expected a finite number above 0/],
  [{ lr: Number.NaN }, /lr is NaN/],
  [{ emaDecay: 1 }, /emaDecay is 1/],
  [{ family: 'UNet' as 'DiT' }, /family is "UNet", expected one of 'DiT', 'SiT', 'MAR'/],
  [{ batchSize: 1000 }, /batchSize is 1000, expected an integer from 1 to the 64 items/],
])('training refuses %j, and leaves nothing', async (options, message) => {
  const before = tf.memory().numTensors;
  await expect(train(data, { config, steps: 2, batchSize: 4, seed: 1, ...(options as Partial<TrainOptions>) })).rejects.toMatchObject({ code: 'ARGUMENT', message: expect.stringMatching(message) as string });
  expect(tf.memory().numTensors).toBe(before);
});

it.each([
  [{ per: 'step' as 'batch' }, /per is "step", expected one of 'sample', 'batch'/],
  [{ update: 'adapters' as 'lora' }, /update is "adapters", expected one of 'lora', 'full', 'frozen'/],
  [{ per: 'batch', estimator: 'reinforce' as 'score-function' }, /estimator is "reinforce"/],
  [{ rank: 0 }, /rank is 0, expected a positive integer/],
  [{ emaDecay: 1 }, /emaDecay is 1/],
  [{ lr: -1 }, /lr is -1/],
  [{ groups: '1:3' }, /groups is "1:3"/],
  [{ batchSize: 1000 }, /batchSize is 1000/],
  [{ scaling: () => Number.NaN }, /scaling is NaN/],
])('learning masks refuses %j, and leaves nothing', async (options, message) => {
  const before = tf.memory().numTensors;
  const teacher = made({}, 2);
  await expect(learnMasks(teacher, data, { steps: 2, batchSize: 4, seed: 1, ...(options as Partial<LearnMasksOptions<DiT>>) })).rejects.toMatchObject({ code: 'ARGUMENT', message: expect.stringMatching(message) as string });
  expect([...teacher.namedParameters()].some(([name]) => name.includes('lora'))).toBe(false);
  teacher.dispose();
  expect(tf.memory().numTensors).toBe(before);
});

it('gradients of a loss that throws leave nothing, also inside of others', () => {
  const x = tf.variable(tf.tensor1d([1, 2, 3]));
  const before = tf.memory().numTensors;
  const broken = (): tf.Scalar => {
    tf.sum(tf.square(tf.exp(x)));
    throw new TypeError('broken');
  };
  expect(() => lossAndGradients(broken, [x])).toThrow('broken');
  expect(tf.memory().numTensors).toBe(before);
  // the outer one's tape is its own
  const { loss, gradients } = lossAndGradients(() => {
    const y = tf.sum(tf.square(x)) as tf.Scalar;
    expect(() => lossAndGradients(broken, [x])).toThrow('broken');
    return y;
  }, [x]);
  expect([...gradients[0]!.dataSync()]).toEqual([2, 4, 6]);
  tf.dispose([loss, gradients]);
  expect(tf.memory().numTensors).toBe(before);
  x.dispose();
});

it('batches of none are refused, not drawn for ever', async () => {
  const [model, vae] = [made({}, 1), new AutoencoderKL({ inChannels: 1, channels: 8, channelMultipliers: [1], numResBlocks: 1, latentChannels: 2, groups: 4, scalingFactor: 1 }, { init: createRng(2) })];
  await expect(sampleImages(model, vae, [1], { seed: 0, batchSize: 0 }).next()).rejects.toThrow('batchSize is 0, expected a positive integer');
  await expect(learnBranches(model, data, { faster: 1.2, steps: 0, seed: 0 })).rejects.toThrow('steps is 0, expected a positive integer');
  await expect(train(data, { config, steps: 1, batchSize: 4, seed: 0, checkpoint: { every: 0, save: async () => {} } })).rejects.toThrow('checkpoint.every is 0');
  model.dispose();
  vae.dispose();
});

it('pictures of no numbers are refused, not black', async () => {
  const images = tf.fill<tf.Rank.R4>([1, 4, 4, 1], NaN);
  await expect(gridPng(images)).rejects.toThrow('images is NaN, expected numbers');
  images.dispose();
});

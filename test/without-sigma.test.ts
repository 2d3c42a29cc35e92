// DiTs whose output has no channels for a variance (`learn_sigma=False` upstream) go the whole path.
import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { AutoencoderKL, DiT, type DiTConfig } from '@tinyfusion/models';
import { chooseByTaylor, distill, gaussianObjective, latentDataset, learnMasks, sampleImages, sampleReference, shallowCopy, train } from '@tinyfusion/recipes';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, expect, it } from 'vitest';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

it.each([4, 2, 3])('with %s channels: taught, cut, recovered and sampled', async (inChannels) => {
  const config: DiTConfig = { inputSize: 4, patchSize: 2, inChannels, hiddenSize: 16, depth: 4, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: false };
  const data = latentDataset(createRng(3).normal(24 * 16 * inChannels), [4, 4, inChannels], Int32Array.from({ length: 24 }, (_, i) => i % 3));
  const tensors = tf.memory().numTensors;
  const small = { steps: 3, batchSize: 4, seed: 1 };
  const teacher = await train(data, { config, ...small });
  const { decision } = await learnMasks(teacher, data, small);
  const student = await shallowCopy(teacher, decision.kept);
  const { mse, loss } = await distill(student, teacher, data, { ...small, alpha: 0, beta: 0 });
  // there is no bound to add to the squared error
  expect(loss).toEqual(mse);
  expect((await chooseByTaylor(teacher, data, { count: 2, seed: 1, images: 32 })).importance.every((i) => i > 0)).toBe(true);
  for (const solver of ['ddpm', 'ddim', 'dpm'] as const) {
    const latents = await sampleReference(student, [0, 2], { solver, steps: 3, rng: createRng(2) });
    expect(latents.shape).toEqual([2, 4, 4, inChannels]);
    expect(Array.from(await latents.data()).every(Number.isFinite)).toBe(true);
    latents.dispose();
  }
  if (inChannels === 4) {
    const vae = new AutoencoderKL({ inChannels: 1, channels: 32, channelMultipliers: [1], numResBlocks: 1, latentChannels: 4, groups: 32, scalingFactor: 1 }, { init: createRng(2) });
    for (const solver of ['ddpm', 'ddim', 'dpm'] as const) for await (const images of sampleImages(student, vae, [0, 1], { solver, steps: 3, seed: 1 })) images.dispose();
    vae.dispose();
  }
  student.dispose();
  teacher.dispose();
  expect(tf.memory().numTensors).toBe(tensors);
});

it('an objective of another variance than the model’s is refused with what would fit', async () => {
  const model = new DiT({ inputSize: 4, patchSize: 2, inChannels: 2, hiddenSize: 16, depth: 2, numHeads: 2, mlpRatio: 2, classDropoutProb: 0, numClasses: 3, learnSigma: false }, { init: createRng(1) });
  const { GaussianDiffusion } = await import('@tinyfusion/diffusion');
  expect(() =>
    tf.tidy(() => {
      const draw = gaussianObjective(new GaussianDiffusion()).draw(model, { latents: tf.zeros([2, 4, 4, 2]), labels: tf.zeros([2], 'int32') }, createRng(1));
      draw.terms(draw.forward(model));
    }),
  ).toThrow("the denoiser's output (variance learned-range) has shape [2, 4, 4, 2], expected [2, 4, 4, 4]");
  model.dispose();
});

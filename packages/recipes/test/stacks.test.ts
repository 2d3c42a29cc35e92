import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { DiT, MAR } from '@tinyfusion/models';
import { allMasks, maskHook, maskLosses } from '@tinyfusion/pruning';
import type { BlockHook } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, expect, it } from 'vitest';
import { type LatentDataset, distill, fashionMar, fashionTeacher, shallowCopy } from '../src/index.js';
import { objectiveOf } from '../src/objective.js';
import { choiceMapOverStacks, depthOf, evenMapOverStacks, groupMapOverStacks, overAllStacks } from '../src/stacks.js';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

// four layers in the encoder, two in the decoder, where sequences are longer
const marOf = (): MAR => new MAR({ ...fashionMar, inputSize: 4, encoderWidth: 16, encoderDepth: 4, encoderHeads: 2, decoderWidth: 16, decoderDepth: 2, decoderHeads: 2, mlpRatio: 2, numClasses: 3, headDepth: 1, headWidth: 16 }, { init: createRng(1) });

const latents: LatentDataset = {
  shape: [4, 4, 4],
  labels: Int32Array.of(0, 1, 2),
  batches: (batchSize) => {
    const rng = createRng(2);
    return {
      next: () => ({ latents: tf.tensor4d(rng.normal(batchSize * 64), [batchSize, 4, 4, 4]), labels: tf.tensor1d(rng.integers(0, 3, batchSize), 'int32') }),
      position: () => ({ epochStart: rng.state(), taken: 0 }),
    };
  },
};

it('layers follow those of their own stack, however unevenly the stacks are cut', async () => {
  const teacher = marOf();
  const student = await shallowCopy(teacher, [0, 4, 5]);
  expect(evenMapOverStacks(teacher, student)).toEqual([[0, 3], [1, 4], [2, 5]]);
  expect(choiceMapOverStacks(teacher, [0, 2, 5])).toEqual([[0, 1], [1, 3], [2, 5]]);
  expect(groupMapOverStacks(teacher, [0, 3], [[1, 2], [1, 4]]), 'a group over the border').toEqual([[0, 1], [1, 3]]);
  expect(() => groupMapOverStacks(teacher, [0], [[1, 2], [1, 4]])).toThrow(/groups that keep the 1 layers 0 of the teacher's 6/);
  await expect(shallowCopy(teacher, [0, 1, 2])).rejects.toThrow(/keep is \[0, 1, 2\], expected at least one layer of each stack: encoder_blocks are layers 0 to 3, decoder_blocks are layers 4 to 5/);
  const { loss } = await distill(student, teacher, latents, { steps: 2, batchSize: 3, seed: 0 });
  expect(loss.every(([, value]) => Number.isFinite(value))).toBe(true);
  for (const model of [student, teacher]) model.dispose();
});

it('losses of masks over two stacks are those of one mask after another', async () => {
  const teacher = marOf();
  const loss = async (hook: BlockHook): Promise<number> => {
    const mean = tf.tidy(() => {
      const draw = objectiveOf(teacher).draw(teacher, latents.batches(3, createRng(3)).next(), createRng(4));
      return tf.mean(draw.terms(draw.forward(teacher, { hook: overAllStacks(teacher, hook) })).loss);
    });
    const [value] = await mean.data();
    mean.dispose();
    return value!;
  };
  const masks = allMasks(6, 3);
  const losses = await maskLosses(masks, { depth: depthOf(teacher), loss });
  expect(losses).toHaveLength(20);
  for (const { kept, loss: shared } of losses) expect(shared, kept.join()).toBeCloseTo(await loss(maskHook(kept)), 5);
  teacher.dispose();
});

it('with one stack the maps are those of its layers', async () => {
  const teacher = new DiT({ ...fashionTeacher, depth: 6, hiddenSize: 16, numHeads: 2 }, { init: createRng(1) });
  const student = await shallowCopy(teacher, [0, 2, 5]);
  expect(evenMapOverStacks(teacher, student)).toEqual([[0, 1], [1, 3], [2, 5]]);
  expect(choiceMapOverStacks(teacher, [0, 2, 5])).toEqual([[0, 1], [1, 4], [2, 5]]);
  expect(groupMapOverStacks(teacher, [0, 2, 5], [[1, 2], [2, 4]])).toEqual([[0, 1], [2, 5]]);
  for (const model of [student, teacher]) model.dispose();
});

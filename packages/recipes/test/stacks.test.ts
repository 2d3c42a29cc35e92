import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { DiT, MAR } from '@tinyfusion/models';
import { allMasks, maskHook, maskLosses } from '@tinyfusion/pruning';
import type { BlockHook } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, expect, it } from 'vitest';
import { type LatentDataset, distill, fashionMar, fashionTeacher, shallowCopy } from '../src/index.js';
import { type Rule, chooseByRule } from '../src/by-rule.js';
import { objectiveOf } from '../src/objective.js';
import { choiceMapOverStacks, depthOf, evenMapOverStacks, groupMapOverStacks, overAllStacks } from '../src/stacks.js';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

// four layers in the encoder, two in the decoder, where sequences are longer
const marOf = (): MAR => new MAR({ ...fashionMar, inputSize: 4, encoderWidth: 16, encoderDepth: 4, encoderHeads: 2, decoderWidth: 16, decoderDepth: 2, decoderHeads: 2, mlpRatio: 2, numClasses: 3, headDepth: 1, headWidth: 16 }, { init: createRng(1) });

it('a rule keeps a share of each stack, and the oracle the ends of the whole row', () => {
  const [mar, teacher] = [marOf(), new DiT({ ...fashionTeacher, hiddenSize: 24, numHeads: 2, depth: 12 }, { init: 'zeros' })];
  const by = (rule: Rule, count: number, model: DiT | MAR = mar) => chooseByRule(model, rule, { count, seed: 3 });
  expect(by('oracle', 6, teacher)).toEqual([0, 2, 4, 7, 9, 11]);
  expect(by('oracle', 3)).toEqual([0, 2, 5]);
  expect([by('first', 3), by('last', 3), by('uniform', 3), by('first', 2), by('first', 5), by('last', 6)]).toEqual([[0, 1, 4], [2, 3, 5], [0, 3, 4], [0, 4], [0, 1, 2, 4, 5], [0, 1, 2, 3, 4, 5]]);
  expect(by('random', 3)).toEqual(by('random', 3));
  expect(by('oracle', 2)).toEqual([0, 5]);
  expect(() => by('first', 1)).toThrow(/count is 1, expected a number of layers from 2, one of each stack, to the model's 6/);
});

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

import '@tensorflow/tfjs-backend-cpu';
import { CheckpointError, createRng } from '@tinyfusion/core';
import { Linear } from '@tinyfusion/nn';
import { type StateDict, parseSafetensors, safetensorsOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { AdamW, Ema, restoreTrainingState, saveTrainingState, trainingProgress, trainingState } from '../src/index.js';

beforeAll(() => tf.setBackend('cpu'));

function partsOf(seed: number) {
  const model = new Linear(2, 3, { init: createRng(seed) });
  const [optimizer, ema] = [new AdamW(model.parameters()), new Ema(model.parameters(), { decay: 0.5 })];
  optimizer.step(model.parameters().map((p) => tf.ones(p.shape)), { lr: 0.1 });
  ema.update();
  return { model, optimizer, ema };
}

/** Everything that a run consists of. */
async function numbersOf({ model, optimizer, ema }: ReturnType<typeof partsOf>): Promise<number[][]> {
  const { m, v } = optimizer.moments();
  return Promise.all([...model.parameters(), ...m, ...v, ...ema.averages()].map(async (t) => [...(await t.data())]));
}

describe('the state of a run', () => {
  it('is of the moment it was asked for, whatever is assigned while it is written, and is gone afterwards', async () => {
    const parts = partsOf(1);
    const expected = await saveTrainingState(parts, { step: 1 });
    const before = tf.memory().numTensors;
    {
      using state = trainingState(parts, { step: 1 });
      parts.ema.swap();
      expect(await safetensorsOf(state)).toEqual(expected);
      parts.ema.swap();
    }
    expect(tf.memory().numTensors).toBe(before);
    const [other, numbers] = [partsOf(2), await numbersOf(parts)];
    expect(await restoreTrainingState(await parseSafetensors(expected), other)).toEqual({ step: 1 });
    expect(await numbersOf(other)).toEqual(numbers);
  });

  it('that cannot be read changes nothing, and leaves nothing', async () => {
    const parts = partsOf(1);
    const { tensors, metadata } = await parseSafetensors(await saveTrainingState(parts, { step: 1 }));
    const other = partsOf(2);
    const [numbers, before] = [await numbersOf(other), tf.memory().numTensors];
    const unreadable = new Map(tensors).set('ema.1', { ...tensors.get('ema.1')!, read: () => Promise.reject(new CheckpointError('the disk is gone')) });
    await expect(restoreTrainingState({ tensors: unreadable, metadata }, other)).rejects.toThrow('the disk is gone');
    for (const text of ['{', 'null', '{}', '{"optimizerSteps":[null],"emaUpdates":0,"progress":{}}', '{"optimizerSteps":[1],"emaUpdates":-1,"progress":{}}', '{"optimizerSteps":[1],"emaUpdates":1,"progress":3}']) {
      const damaged: StateDict = { tensors, metadata: new Map([['tinyfusion.progress', text]]) };
      await expect(restoreTrainingState(damaged, other), text).rejects.toThrow(/the saved run's tinyfusion\.progress is damaged/);
      expect(() => trainingProgress(damaged), text).toThrow(CheckpointError);
    }
    expect(await numbersOf(other)).toEqual(numbers);
    expect(tf.memory().numTensors).toBe(before);
  });
});

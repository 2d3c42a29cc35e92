import '@tensorflow/tfjs-backend-cpu';
import { CancelledError, type ProgressEvent, ShapeError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { type FeatureNetwork, extractFeatures } from '../src/index.js';

beforeAll(() => tf.setBackend('cpu'));

/** Means of the two columns of a 2 × 2 image, and their negatives as logits. */
const columns: FeatureNetwork = {
  name: 'column means',
  version: '7',
  inputSize: 2,
  dimension: 2,
  classes: 2,
  comparable: false,
  run: (images) =>
    tf.tidy(() => {
      const features = tf.mean(images, [1, 3]) as tf.Tensor2D;
      return { features, logits: tf.neg(features) };
    }),
};

// image number i, from 1, is i in the left column and −i in the right one
async function* numbered(...sizes: number[]): AsyncGenerator<tf.Tensor4D> {
  let at = 1;
  for (const size of sizes) {
    const values = Array.from({ length: size }, (_, i) => [at + i, -(at + i), at + i, -(at + i)]).flat();
    at += size;
    yield tf.tensor4d(values, [size, 2, 2, 1]);
  }
}

async function leaksNothing(run: () => Promise<void>): Promise<void> {
  const before = tf.memory().numTensors;
  await run();
  expect(tf.memory().numTensors).toBe(before);
}

describe('extractFeatures', () => {
  it('joins batches in order, reports each, and leaves no tensor', () =>
    leaksNothing(async () => {
      const events: ProgressEvent[] = [];
      const { count, features, logits } = await extractFeatures(columns, numbered(2, 3), { total: 5, onProgress: (e) => events.push(e) });
      expect(count).toBe(5);
      expect([...features]).toEqual([1, -1, 2, -2, 3, -3, 4, -4, 5, -5]);
      expect([...logits]).toEqual([-1, 1, -2, 2, -3, 3, -4, 4, -5, 5]);
      expect(events.map(({ step, total }) => [step, total])).toEqual([[2, 5], [5, 5]]);
    }));

  it('says where features come from, as JSON', async () => {
    const { provenance } = await extractFeatures(columns, numbered(2));
    expect(JSON.parse(JSON.stringify(provenance))).toEqual({
      network: 'column means',
      version: '7',
      resize: 'none',
      images: 2,
      warnings: ['2 images for 2 features: their covariance is singular; use more than 2, better ten times as many', 'features are those of column means: compare these numbers with each other, not with published ones'],
    });
    expect((await extractFeatures({ ...columns, comparable: true, resize: 'bilinear' }, numbered(3))).provenance).toMatchObject({ resize: 'bilinear', warnings: [] });
  });

  it('takes a network that does not classify', async () => {
    const { logits } = await extractFeatures({ ...columns, classes: 0, run: (images) => ({ features: tf.tidy(() => tf.mean(images, [1, 3]) as tf.Tensor2D) }) }, numbered(3));
    expect(logits.length).toBe(0);
  });

  it('ends when cancelled, closes the stream and leaves no tensor', () =>
    leaksNothing(async () => {
      const controller = new AbortController();
      let closed = false;
      async function* stream() {
        try {
          yield* numbered(1, 1, 1);
        } finally {
          closed = true;
        }
      }
      await expect(extractFeatures(columns, stream(), { signal: controller.signal, onProgress: () => controller.abort() })).rejects.toThrow(CancelledError);
      expect(closed).toBe(true);
    }));

  it('is stopped by a timer, and frees what a list of batches still holds', () =>
    leaksNothing(async () => {
      const controller = new AbortController();
      const done: number[] = [];
      const lists: tf.Tensor4D[] = [];
      for await (const images of numbered(...Array.from({ length: 2000 }, () => 1))) lists.push(images);
      setTimeout(() => controller.abort(), 5);
      await expect(extractFeatures(columns, lists, { signal: controller.signal, onProgress: ({ step }) => done.push(step) })).rejects.toThrow(CancelledError);
      expect(done.length).toBeLessThan(2000);
    }));

  it('leaves no tensor where the network throws or is not what it states', () =>
    leaksNothing(async () => {
      const throwing = { ...columns, run: () => { throw new Error('out of memory'); } };
      await expect(extractFeatures(throwing, numbered(2))).rejects.toThrow('out of memory');
      await expect(extractFeatures({ ...columns, dimension: 3 }, numbered(2))).rejects.toThrow('extractFeatures: features of column means has shape [2, 2], expected [N=2, 3]');
      await expect(extractFeatures({ ...columns, classes: 10 }, numbered(2))).rejects.toThrow(ShapeError);
      const silent = { ...columns, run: (images: tf.Tensor4D) => ({ features: tf.tidy(() => columns.run(images).features) }) };
      await expect(extractFeatures(silent, numbered(2))).rejects.toThrow('logits of column means');
    }));

  it('refuses an empty stream', async () => {
    await expect(extractFeatures(columns, [])).rejects.toThrow('extractFeatures: images is 0, expected at least one');
  });
});

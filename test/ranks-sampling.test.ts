// Ranks that share sampling and measuring come to what one process comes to.
import { createRng } from '@tinyfusion/core';
import type { ImageDataset } from '@tinyfusion/data';
import { classifierFeatures, ConvClassifier } from '@tinyfusion/eval';
import { useBackend } from '@tinyfusion/kernels';
import { AutoencoderKL, DiT } from '@tinyfusion/models';
import { evaluateModel, fashionClassifier, referenceFeatures, sampleImages, setFeatures } from '@tinyfusion/recipes';
import { type Collective, allGather, singleCollective, threadCollective, threadMemory } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { batchesInOrder } from '../packages/recipes/src/shared-batches.js';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

const onRanks = <T>(size: number, job: (collective: Collective) => Promise<T>): Promise<T[]> => {
  const memory = threadMemory(size);
  return Promise.all(Array.from({ length: size }, (_, rank) => job(threadCollective(memory, rank))));
};

const config = { inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 2, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };

describe('ranks', () => {
  it('gather arrays of any length', async () => {
    const all = await onRanks(3, (collective) => allGather(collective, Float32Array.from({ length: 2 * collective.rank }, (_, i) => 10 * collective.rank + i)));
    for (const parts of all) expect(parts.map((part) => [...part])).toEqual([[], [10, 11], [20, 21, 22, 23]]);
  });

  it('draw the images of one process, in order; all stop when one is asked to', async () => {
    const model = new DiT(config, { init: createRng(1) });
    const vae = new AutoencoderKL({ inChannels: 1, channels: 8, channelMultipliers: [1, 1], numResBlocks: 1, latentChannels: 4, groups: 4, scalingFactor: 1 }, { init: createRng(2) });
    const labels = Int32Array.from({ length: 11 }, (_, i) => i % 3);
    const draw = (stop?: AbortSignal, inside?: AbortController) => async (collective: Collective): Promise<number[]> => {
      const own = sampleImages(model, vae, labels, { steps: 2, seed: 3, batchSize: 2, share: collective, ...(inside === undefined || collective.rank !== 1 ? {} : { signal: inside.signal, onStep: (_step, batch) => batch > 2 && inside.abort() }) });
      const numbers: number[] = [];
      const done: number[] = [];
      for await (const images of batchesInOrder(collective, own, { count: 6, total: 11, shape: [8, 8, 1], task: 'sample', signal: collective.rank === 1 ? stop : undefined, onProgress: ({ step }) => done.push(step) })) {
        numbers.push(...(await images.data()));
        images.dispose();
      }
      expect(done).toEqual({ 1: [2, 4, 6, 8, 10, 11], 2: [4, 8, 11], 4: [8, 11] }[collective.size]);
      return numbers;
    };
    const [one] = await onRanks(1, draw());
    expect(one).toHaveLength(11 * 64);
    await onRanks(2, draw());
    const tensors = tf.memory().numTensors;
    for (const size of [2, 4]) for (const numbers of await onRanks(size, draw())) expect(numbers).toEqual(one);
    expect(tf.memory().numTensors).toBe(tensors);
    const stop = new AbortController();
    stop.abort();
    const ends = await onRanks(3, (collective) => draw(stop.signal)(collective).then(() => 'went on', (error: { code: string }) => error.code));
    expect(ends).toEqual(['CANCELLED', 'CANCELLED', 'CANCELLED']);
    // in the middle of a batch of one rank
    const inside = new AbortController();
    expect(await onRanks(2, (collective) => draw(undefined, inside)(collective).then(() => 'went on', (error: { code: string }) => error.code))).toEqual(['CANCELLED', 'CANCELLED']);
    expect(tf.memory().numTensors).toBe(tensors);
    model.dispose();
    vae.dispose();
  });

  it('measure a model by the numbers of one process', async () => {
    const model = new DiT(config, { init: createRng(1) });
    const vae = new AutoencoderKL({ inChannels: 1, channels: 8, channelMultipliers: [1, 1], numResBlocks: 1, latentChannels: 4, groups: 4, scalingFactor: 1 }, { init: createRng(2) });
    const classifier = new ConvClassifier({ ...fashionClassifier, inputSize: 8, width: 8, features: 16 }, { init: createRng(4) });
    const network = classifierFeatures(classifier, 'a test');
    const data: ImageDataset = { images: Uint8Array.from(createRng(7).integers(0, 256, 600 * 64)), height: 8, width: 8, channels: 1, numClasses: 10, labels: Int32Array.from({ length: 600 }, (_, i) => i % 10), classNames: [] };
    const measure = async (collective: Collective) => {
      const real = await referenceFeatures(network, data, 600, { collective });
      const { imagesPerSecond, ...numbers } = await evaluateModel(model, vae, network, real, { count: 26, steps: 2, seed: 0, batchSize: 4, collective });
      expect(imagesPerSecond).toBeGreaterThan(0);
      return numbers;
    };
    const one = await measure(singleCollective());
    expect(one.counts).toEqual({ generated: 26, real: 600 });
    for (const numbers of await onRanks(3, measure)) expect(numbers).toEqual(one);
    const errors = await onRanks(4, (collective) => measure(collective).catch((error: Error) => error.message));
    expect(errors[0]).toContain('at most 3, one for each batch of real images');
  });

  it('run a network over a set, a batch each in turn', async () => {
    const source = { name: 'a test', count: 23, height: 2, width: 2, warnings: [], batches: async function* (most: number) {
      const bytes = Uint8Array.from(createRng(1).integers(0, 256, 23 * 12));
      for (let at = 0; at < bytes.length; at += 12 * most) yield bytes.subarray(at, at + 12 * most);
    } };
    const net = { name: 'means', dimension: 3, spatialDimension: 4, classes: 3, comparable: false, resize: 'none', inputSize: 2, run: async (images: tf.Tensor4D) => tf.tidy(() => ({ features: tf.mean(images, [1, 2]) as tf.Tensor2D, spatial: tf.reshape(tf.mean(images, 3), [-1, 4]) as tf.Tensor2D, logits: tf.div(tf.mean(images, [1, 2]), 50) as tf.Tensor2D })) };
    const measure = async (collective: Collective) => {
      const { pooled, spatial, ...rest } = await setFeatures(net, source, { batchSize: 4, rows: true, scored: true, collective });
      return { ...rest, pooled: pooled.finish(), spatial: spatial!.finish() };
    };
    const one = await measure(singleCollective());
    expect(one.count).toBe(23);
    for (const size of [2, 5]) for (const found of await onRanks(size, measure)) expect(found).toEqual(one);
  });
});

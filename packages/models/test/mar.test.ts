import { createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { MAR, type MARConfig, TokenMask, drawMAR, drawMaskRatio, sampleMAR } from '../src/index.js';

const config: MARConfig = {
  inputSize: 4,
  patchSize: 1,
  inChannels: 2,
  encoderWidth: 8,
  encoderDepth: 1,
  encoderHeads: 2,
  decoderWidth: 8,
  decoderDepth: 1,
  decoderHeads: 2,
  mlpRatio: 2,
  normEpsilon: 1e-6,
  numClasses: 3,
  bufferSize: 2,
  headDepth: 1,
  headWidth: 8,
  maskRatioMin: 0.7,
  labelDropProb: 0.1,
  attentionDropout: 0,
  projectionDropout: 0.5,
  diffusionBatchMul: 1,
};

describe('MAR', () => {
  it('draws masking ratios from the left half of a Gaussian, cut off', () => {
    const rng = createRng(0);
    const ratios = Array.from({ length: 4000 }, () => drawMaskRatio(rng, 0.7));
    expect(Math.min(...ratios)).toBeGreaterThanOrEqual(0.7);
    expect(Math.max(...ratios)).toBeLessThanOrEqual(1);
    // the mean of a normal distribution cut to [−1.2, 0], times 0.25, plus 1
    const density = (z: number) => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
    const mean = 1 + (0.25 * (density(-1.2) - density(0))) / 0.38493;
    expect(ratios.reduce((a, b) => a + b, 0) / ratios.length).toBeCloseTo(mean, 2);
  });

  it('masks the same number of tokens in every sample', () => {
    const mar = new MAR(config, { init: createRng(0) });
    const { mask } = drawMAR(mar, createRng(1), 5);
    expect(mask.maskedRows().length).toBe(5 * mask.maskedCount);
    expect(() => new TokenMask(2, 2, Uint8Array.of(1, 1, 0, 1))).toThrow(/the same number everywhere/);
    mar.dispose();
  });

  it('drops out in training only', async () => {
    const mar = new MAR(config, { init: createRng(0) });
    const tokens = tf.tensor3d(createRng(2).normal(32), [1, 16, 2]);
    const mask = new TokenMask(1, 16, new Uint8Array(16).fill(1, 4));
    const condition = mar.classEmbedding(tf.tensor1d([1], 'int32'));
    const run = async (seed?: number) => [...(await mar.encode(tokens, mask, condition, seed === undefined ? {} : { dropout: createRng(seed) }).data())];
    expect(await run()).toEqual(await run());
    expect(await run(1)).toEqual(await run(1));
    expect(await run(1)).not.toEqual(await run(2));
    expect(await run(1)).not.toEqual(await run());
    mar.dispose();
  });

  it('refuses what cannot be sampled, and stops when told to', async () => {
    const mar = new MAR(config, { init: createRng(0) });
    const rng = createRng(0);
    const first = async (options: object) => (await sampleMAR(mar, { labels: [0], rng, steps: '4', iterations: 4, ...options }).next()).value;
    await expect(first({ labels: [3] })).rejects.toThrow(/labels is 3, expected integers from 0 to 2/);
    await expect(first({ iterations: 17 })).rejects.toThrow(/iterations is 17, expected an integer from 1 to 16/);
    await expect(first({ guidanceSchedule: 'cosine' })).rejects.toThrow(/guidanceSchedule/);
    await expect(first({ orders: [Int32Array.of(1, 2)] })).rejects.toThrow(/permutations of 0 … 15/);
    await expect(first({ steps: 'ddim7000' })).rejects.toThrow(/ddim7000/);
    const before = tf.memory().numTensors;
    await expect(first({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
    for await (const { step } of sampleMAR(mar, { labels: [0, null], rng, iterations: 4, steps: '4', guidance: 3 })) if (step === 2) break;
    expect(tf.memory().numTensors).toBe(before);
    mar.dispose();
  });
});

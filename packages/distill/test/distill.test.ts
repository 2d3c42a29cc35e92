import { createRng } from '@tinyfusion/core';
import { GaussianDiffusion, Transport } from '@tinyfusion/diffusion';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { activationMask, decayingWeight, distillationTerms, evenLayerMap, layerMapOfGroups, maskedFeatureLoss, velocityDistillationTerms } from '../src/index.js';

const normal = (seed: number, shape: number[]) => tf.tensor(createRng(seed).normal(shape.reduce((a, b) => a * b, 1)), shape);

describe('layer maps', () => {
  it('are the reference’s for 1:2, and at equal relative depth for any cut', () => {
    expect(evenLayerMap(12, 6)).toEqual([0, 1, 2, 3, 4, 5].map((i) => [i, 2 * i + 1]));
    expect(layerMapOfGroups([{ kept: 1, size: 2 }, { kept: 3, size: 4 }])).toEqual([[0, 1], [3, 5]]);
    expect(evenLayerMap(28, 19).at(-1)).toEqual([18, 27]);
    expect(() => evenLayerMap(4, 5)).toThrow(/from 1 to 4/);
  });

  it('weights decay to nothing, also in one step', () => {
    expect([0, 5, 10].map((s) => decayingWeight(0.01, s, 11))).toEqual([0.01, 0.005, 0]);
    expect(decayingWeight(0.01, 0, 1)).toBe(0.01);
  });
});

describe('the masked feature loss', () => {
  it('leaves massive activations out, on either side', async () => {
    const s = normal(1, [2, 4, 8]) as tf.Tensor3D;
    const massive = tf.add(s, tf.mul(tf.mul(tf.oneHot(tf.zeros([2, 4], 'int32'), 8), tf.tensor3d([1, 0, 0, 0, 1, 0, 0, 0], [2, 4, 1])), 1000)) as tf.Tensor3D;
    const [plain, masked] = [maskedFeatureLoss([s], [massive], { sigmas: Infinity }), maskedFeatureLoss([s], [massive])];
    expect((await plain.data())[0]).toBeGreaterThan(10_000);
    expect((await masked.data())[0]).toBeLessThan(5);
    const both = maskedFeatureLoss([massive], [massive], { mode: 'intersection' });
    expect((await both.data())[0]).toBe(0);
  });

  it('has no gradient through its masks, and none where it masks', async () => {
    const t = normal(2, [1, 4, 8]) as tf.Tensor3D;
    const x = normal(3, [1, 4, 8]) as tf.Tensor3D;
    const mask = await activationMask(x, 1).data();
    expect(new Set(mask)).toEqual(new Set([0, 1]));
    const grad = await tf.grad((h: tf.Tensor) => tf.sum(maskedFeatureLoss([h as tf.Tensor3D], [t], { sigmas: 1 })))(x).data();
    for (const [i, m] of mask.entries()) if (m === 0) expect(grad[i]).toBe(0);
  });

  it('refuses what does not pair up', () => {
    const [a, b] = [tf.zeros([1, 2, 3]) as tf.Tensor3D, tf.zeros([1, 2, 4]) as tf.Tensor3D];
    expect(() => maskedFeatureLoss([a], [b])).toThrow(/student layer 0 has shape \[1, 2, 3\], expected \[1, 2, 4\]/);
    expect(() => maskedFeatureLoss([], [])).toThrow(/one at least/);
    expect(() => maskedFeatureLoss([a], [a], { sigmas: 0 })).toThrow(/sigmas is 0/);
  });
});

describe('output distillation', () => {
  it('mixes teacher and truth, and gives no gradient to the teacher', async () => {
    const diffusion = new GaussianDiffusion();
    const [x0, noise] = [normal(4, [2, 2, 2, 3]), normal(5, [2, 2, 2, 3])];
    const t = [10, 500];
    const x = diffusion.qSample(x0, t, noise);
    const [student, teacher] = [normal(6, [2, 2, 2, 6]), normal(7, [2, 2, 2, 6])];
    const terms = distillationTerms(diffusion, { student, teacher, x0, x, t, noise }, { alpha: 0.25 });
    const [loss, kd, truth] = await Promise.all([terms.loss.data(), terms.distillation.data(), terms.groundTruth.data()]);
    for (const i of [0, 1]) expect(loss[i]).toBeCloseTo(0.25 * kd[i]! + 0.75 * truth[i]!, 4);
    const grads = tf.grads((s: tf.Tensor, other: tf.Tensor) => tf.sum(distillationTerms(diffusion, { student: s, teacher: other, x0, x, t, noise }).loss))([student, teacher]);
    expect((await tf.sum(tf.abs(grads[1]!)).data())[0]).toBe(0);
    expect((await tf.sum(tf.abs(grads[0]!)).data())[0]).toBeGreaterThan(0);
  });

  it('refuses outputs without the channels that the variance needs, whoever put them out', () => {
    const diffusion = new GaussianDiffusion();
    const [x0, whole] = [normal(1, [2, 2, 2, 2]), normal(2, [2, 2, 2, 4])];
    const inputs = { student: whole, teacher: whole, x0, x: x0, t: [3, 4], noise: x0 };
    expect(() => distillationTerms(diffusion, { ...inputs, student: x0 })).toThrow("the student's output (variance learned-range) has shape [2, 2, 2, 2], expected [2, 2, 2, 4]");
    expect(() => distillationTerms(diffusion, { ...inputs, teacher: x0 })).toThrow("the teacher's output");
    expect(() => distillationTerms(diffusion, { ...inputs, noise: whole })).toThrow('lossTerms: noise has shape [2, 2, 2, 4], expected [2, 2, 2, 2]');
    expect(() => diffusion.lossTerms(x0, x0, x0, [3, 4], x0)).toThrow("the denoiser's output");
    expect(() => velocityDistillationTerms(new Transport(), { student: x0, teacher: whole, data: x0, t: [0.2, 0.9], noise: x0 })).toThrow("the teacher's output has shape [2, 2, 2, 4], expected [2, 2, 2, 2]");
  });

  it('of a student that is its teacher costs nothing beyond the truth', async () => {
    const transport = new Transport();
    const [data, noise, output] = [normal(4, [2, 2, 2, 3]), normal(5, [2, 2, 2, 3]), normal(6, [2, 2, 2, 3])];
    const terms = velocityDistillationTerms(transport, { student: output, teacher: output, data, t: [0.2, 0.9], noise });
    expect([...(await terms.distillation.data())]).toEqual([0, 0]);
    const [loss, truth] = [await terms.loss.data(), await terms.groundTruth.data()];
    expect(loss[0]).toBeCloseTo(0.1 * truth[0]!, 5);
  });
});

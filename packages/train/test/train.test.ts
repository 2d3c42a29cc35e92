import { CheckpointError, createRng } from '@tinyfusion/core';
import { Linear, Module } from '@tinyfusion/nn';
import { parseSafetensors } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { AdamW, Ema, clipFactor, constant, cosine, globalNorm, lossAndGradients, restoreTrainingState, saveTrainingState, withWarmUp } from '../src/index.js';

class Net extends Module {
  readonly fc = new Linear(3, 2, { init: createRng(1) });
}

describe('schedules', () => {
  it('go where they say', () => {
    const s = cosine({ from: 2, to: 1, steps: 10 });
    expect([s(0), s(5), s(10), s(99)]).toEqual([2, expect.closeTo(1.5, 12), 1, 1]);
    expect([0, 1, 3, 9].map(withWarmUp(constant(4), 4))).toEqual([1, 2, 4, 4]);
    expect(() => cosine({ from: 1, to: 0, steps: 0 })).toThrow(/steps is 0/);
  });
});

describe('gradients', () => {
  it('are zeros for parameters that the loss does not know, and clip as PyTorch does', async () => {
    const [a, b] = [tf.variable(tf.tensor1d([3, 4])), tf.variable(tf.tensor1d([1]))];
    const { loss, gradients } = lossAndGradients(() => tf.mul(tf.sum(tf.square(a)), 0.5) as tf.Scalar, [a, b]);
    expect((await loss.data())[0]).toBe(12.5);
    expect([...(await gradients[1]!.data())]).toEqual([0]);
    expect(await globalNorm(gradients)).toBe(5);
    expect(clipFactor(5, 1)).toBeCloseTo(0.2, 6);
    expect(clipFactor(0.5, 1)).toBe(1);
  });
});

describe('averages', () => {
  it('follow the values, warm up, and change places with them', async () => {
    const v = tf.variable(tf.scalar(0));
    const [plain, warm] = [new Ema([v], { decay: 0.9 }), new Ema([v], { decay: 0.9, warmUp: true })];
    v.assign(tf.scalar(1));
    plain.update();
    warm.update();
    expect((await plain.averages()[0]!.data())[0]).toBeCloseTo(0.1, 6);
    expect((await warm.averages()[0]!.data())[0]).toBeCloseTo(1 - 2 / 11, 6);
    plain.swap();
    expect((await v.data())[0]).toBeCloseTo(0.1, 6);
    plain.swap();
    expect((await v.data())[0]).toBe(1);
    expect(() => new Ema([v], { decay: 1 })).toThrow(/decay is 1/);
  });
});

describe('a saved run', () => {
  it('comes back whole, and refuses another model without changing anything', async () => {
    const net = new Net();
    const [optimizer, ema] = [new AdamW(net.parameters()), new Ema(net.parameters(), { decay: 0.9 })];
    const step = (): void => optimizer.step(net.parameters().map((p) => tf.ones(p.shape)), { lr: 0.1 });
    step();
    ema.update();
    const file = await parseSafetensors(await saveTrainingState({ model: net, optimizer, ema }, { step: 1 }));
    const saved = await Promise.all(net.parameters().map((p) => p.data()));
    step();
    const wanted = await Promise.all(net.parameters().map((p) => p.data()));
    const other = new Net();
    const [again, averages] = [new AdamW(other.parameters()), new Ema(other.parameters(), { decay: 0.9 })];
    expect(await restoreTrainingState(file, { model: other, optimizer: again, ema: averages })).toEqual({ step: 1 });
    expect(await Promise.all(other.parameters().map((p) => p.data()))).toEqual(saved);
    again.step(other.parameters().map((p) => tf.ones(p.shape)), { lr: 0.1 });
    expect(await Promise.all(other.parameters().map((p) => p.data()))).toEqual(wanted);
    const small = new Linear(2, 2, { init: createRng(0) });
    await expect(restoreTrainingState(file, { model: small, optimizer: new AdamW(small.parameters()) })).rejects.toBeInstanceOf(CheckpointError);
  });

  it('counts gradients', () => {
    const net = new Net();
    expect(() => new AdamW(net.parameters()).step([], { lr: 1 })).toThrow(/2 gradients/);
  });
});

import { ArgumentError, CheckpointError, ShapeError, createRng } from '@tinyfusion/core';
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

  it('refuse rates that would climb a loss, or are none', () => {
    for (const rate of [-1, Number.NaN, Infinity]) {
      expect(() => constant(rate)).toThrow(`constant: value is ${rate}, expected a finite number from 0`);
      expect(() => cosine({ from: rate, to: 0, steps: 5 })).toThrow(`from is ${rate}`);
      expect(() => cosine({ from: 1, to: rate, steps: 5 })).toThrow(`to is ${rate}`);
    }
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

  it('are zeros where the loss knows no parameter, and leave nothing', async () => {
    const [a, fixed] = [tf.variable(tf.tensor1d([3, 4])), tf.variable(tf.tensor1d([1]), false)];
    const before = tf.memory().numTensors;
    const sum = (): tf.Scalar => tf.sum(fixed);
    for (const [loss, parameters, value] of [[() => tf.scalar(7), [a], 7], [sum, [a, fixed], 1], [sum, [fixed], 1]] as const) {
      const made = lossAndGradients(loss, parameters);
      expect((await made.loss.data())[0]).toBe(value);
      for (const [i, gradient] of made.gradients.entries()) expect(await gradient.data()).toEqual(new Float32Array(parameters[i]!.size));
      tf.dispose(made);
    }
    expect(() => lossAndGradients(() => tf.square(a) as unknown as tf.Scalar, [a])).toThrow('lossAndGradients: loss has shape [2], expected []');
    expect(tf.memory().numTensors).toBe(before);
    tf.dispose([a, fixed]);
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

  it('that are restored between a step and its update take part in the update', async () => {
    const v = tf.variable(tf.scalar(0));
    const [optimizer, ema] = [new AdamW([v]), new Ema([v], { decay: 0.5 })];
    optimizer.step([tf.scalar(1)], { lr: 1, ema });
    ema.restore([tf.scalar(3)], 0);
    v.assign(tf.scalar(1));
    ema.update();
    expect((await ema.averages()[0]!.data())[0]).toBe(2);
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
    expect(averages.updates).toBe(1);
    expect(await Promise.all(averages.averages().map((t) => t.data()))).toEqual(await Promise.all(ema.averages().map((t) => t.data())));
    expect(await averages.averages()[0]!.data()).not.toEqual(saved[0]);
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

describe('an optimiser', () => {
  it.each([
    [{ beta1: 1 }, 'beta1 is 1, expected a number in [0, 1)'],
    [{ beta1: 1.5 }, 'beta1 is 1.5'],
    [{ beta1: Number.NaN }, 'beta1 is NaN'],
    [{ beta2: 1 }, 'beta2 is 1'],
    [{ beta2: -0.1 }, 'beta2 is -0.1'],
    [{ epsilon: -1 }, 'epsilon is -1, expected a finite number from 0'],
    [{ weightDecay: -5 }, 'weightDecay is -5'],
    [{ weightDecay: Infinity }, 'weightDecay is Infinity'],
  ])('refuses %j', (options, message) => {
    expect(() => new AdamW([], options)).toThrow(`AdamWOptions.${message}`);
  });

  it('and averages can be made and used inside of tidy', async () => {
    const run = async (inside: <T extends tf.TensorContainer>(f: () => T) => T): Promise<number[]> => {
      const p = tf.tidy(() => tf.variable(tf.tensor1d([1, -2])));
      const made: { optimizer?: AdamW; ema?: Ema } = {};
      inside(() => {
        made.optimizer = new AdamW([p]);
        made.ema = new Ema([p], { decay: 0.5 });
        return [];
      });
      const { optimizer, ema } = made as Required<typeof made>;
      for (let i = 0; i < 4; i++) {
        inside(() => {
          const { loss, gradients } = lossAndGradients(() => tf.sum(tf.square(p)), [p]);
          optimizer.step(gradients, { lr: 0.1, ema: i % 2 === 0 ? ema : undefined });
          ema.update();
          if (i === 1) ema.swap();
          if (i === 2) ema.restore(ema.averages().map((t) => tf.clone(t)), ema.updates);
          if (i === 2) optimizer.restore({ step: optimizer.steps, m: optimizer.moments().m.map((t) => tf.clone(t)), v: optimizer.moments().v.map((t) => tf.clone(t)) });
          return [loss];
        });
      }
      const values = (await Promise.all([p, ...ema.averages(), ...optimizer.moments().m, ...optimizer.moments().v].map((t) => t.data()))).flatMap((v) => [...v]);
      optimizer.dispose();
      ema.dispose();
      p.dispose();
      return values;
    };
    const wanted = await run((f) => f());
    const before = tf.memory().numTensors;
    expect(await run((f) => tf.tidy(() => { f(); return tf.scalar(0); }).dispose() as never)).toEqual(wanted);
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe('a step that cannot be made', () => {
  const [ones, more] = [tf.ones([2, 3]), tf.ones([3, 2])];
  const setUp = () => {
    const parameter = tf.variable(tf.fill([2, 3], 5));
    return { parameter, optimizer: new AdamW([parameter]), ema: new Ema([parameter], { decay: 0.9 }) };
  };

  it.each([
    ['a gradient of another shape', [more], { lr: 0.1 }, ShapeError, /AdamW\.step: gradient 0 has shape \[3, 2\], expected \[2, 3\]/],
    ['no learning rate', [ones], {}, ArgumentError, /AdamW\.step: lr is \w+, expected a finite number from 0/],
    ['a learning rate of NaN', [ones], { lr: Number.NaN }, ArgumentError, /lr is NaN/],
    ['one that climbs', [ones], { lr: -0.1 }, ArgumentError, /lr is -0\.1/],
    ['a factor of NaN', [ones], { lr: 0.1, gradientScale: Number.NaN }, ArgumentError, /gradientScale is NaN, expected a finite number from 0; a step whose gradients are not finite/],
    ['a factor without end', [ones], { lr: 0.1, gradientScale: Infinity }, ArgumentError, /gradientScale is Infinity/],
  ] as const)('%s is refused, and changes nothing', async (_, gradients, options, error, message) => {
    const { parameter, optimizer } = setUp();
    const step = () => optimizer.step(gradients, options as { lr: number });
    expect(step).toThrow(error);
    expect(step).toThrow(message);
    expect([optimizer.steps, ...(await parameter.data())]).toEqual([0, 5, 5, 5, 5, 5, 5]);
  });

  it('has a norm that is not finite', () => {
    for (const norm of [Number.NaN, Infinity]) expect(() => clipFactor(norm, 1)).toThrow(`clipFactor: norm is ${norm}, expected a finite number from 0; a step whose gradients are not finite`);
    expect(() => clipFactor(1, Number.NaN)).toThrow(/most is NaN/);
  });

  it('is not brought about by what is restored', async () => {
    const { optimizer, ema } = setUp();
    expect(() => optimizer.restore({ step: 1, m: [more], v: [ones] })).toThrow(/AdamW\.restore: first moment 0 has shape \[3, 2\], expected \[2, 3\]/);
    expect(() => optimizer.restore({ step: 1, m: [ones], v: [more] })).toThrow(/second moment 0/);
    expect(() => optimizer.restore({ step: Number.NaN, m: [ones], v: [ones] })).toThrow(/step is NaN, expected an integer from 0/);
    expect(() => ema.restore([more], 1)).toThrow(/Ema\.restore: average 0 has shape \[3, 2\], expected \[2, 3\]/);
    expect(() => ema.restore([ones], -1)).toThrow(/updates is -1/);
    expect([optimizer.steps, ema.updates, ...(await ema.averages()[0]!.data())]).toEqual([0, 0, 5, 5, 5, 5, 5, 5]);
  });
});

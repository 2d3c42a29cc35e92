import { ArgumentError, createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { MAR, type MARConfig, SiT, createModel, ditConfig, marConfig, presets } from '../src/index.js';

/** Parameters of a DiT or SiT of some depth; every block has as many as the next. */
function ditCount(name: string): number {
  const { depth } = ditConfig(name);
  const [one, two] = [1, 2].map((d) => {
    const model = createModel(name, { init: 'zeros', changes: { depth: d } });
    const count = model.parameterCount();
    model.dispose();
    return count;
  }) as [number, number];
  return one + (depth - 1) * (two - one);
}

/** The same of a MAR, whose stacks and head have depths of their own. */
function marCount(name: string): number {
  const full = marConfig(name);
  const count = (changes: Partial<MARConfig>): number => {
    const model = createModel(name as 'MAR-B', { init: 'zeros', changes: { encoderDepth: 1, decoderDepth: 1, headDepth: 1, ...changes } });
    const parameters = model.parameterCount();
    model.dispose();
    return parameters;
  };
  const least = count({});
  return (['encoderDepth', 'decoderDepth', 'headDepth'] as const).reduce((sum, stack) => sum + (full[stack] - 1) * (count({ [stack]: 2 }) - least), least);
}

const millions = (count: number) => Math.round(count / 1e6);

describe('presets', () => {
  // DiT's table 1, SiT's table 1, the paper's tables 1 and 2
  it.each([
    ['DiT-S/2', 33],
    ['DiT-S/4', 33],
    ['DiT-S/8', 33],
    ['DiT-B/2', 130],
    ['DiT-B/4', 131],
    ['DiT-B/8', 131],
    ['DiT-L/2', 458],
    ['DiT-L/4', 459],
    ['DiT-L/8', 459],
    ['DiT-XL/2', 675],
    ['DiT-XL/4', 675],
    ['DiT-XL/8', 676],
    ['TinyDiT-D19', 460],
    ['TinyDiT-D14', 340],
    ['TinyDiT-D7', 173],
    ['SiT-S/2', 33],
    ['SiT-B/2', 130],
    ['SiT-L/2', 458],
    ['SiT-XL/2', 675],
    ['TinySiT-D14', 340],
  ])('%s has %i M parameters', (name, published) => {
    expect(Math.abs(millions(ditCount(name)) - published)).toBeLessThanOrEqual(1);
  });

  // MAR's table 4, the paper's table 2
  it.each([
    ['MAR-B', 208],
    ['MAR-L', 479],
    ['MAR-H', 943],
    ['TinyMAR-D16', 277],
  ])('%s has %i M parameters', (name, published) => {
    expect(Math.abs(millions(marCount(name)) - published)).toBeLessThanOrEqual(1);
  });

  it('build the class that their name says', () => {
    const small = { hiddenSize: 16, numHeads: 2, depth: 1 };
    expect(createModel('SiT-S/8', { init: createRng(0), changes: small })).toBeInstanceOf(SiT);
    expect(createModel('MAR-B', { init: createRng(0), changes: { encoderWidth: 16, encoderHeads: 2, encoderDepth: 1, decoderWidth: 16, decoderHeads: 2, decoderDepth: 1, headWidth: 8, headDepth: 1 } })).toBeInstanceOf(MAR);
    expect(presets.length).toBe(new Set(presets).size);
  });

  it('unknown ones are refused with the nearest', () => {
    expect(() => createModel('DiT-XL2', { init: 'zeros' })).toThrow(/the nearest is DiT-XL\/2/);
    expect(() => marConfig('mar-large')).toThrow(/the nearest is MAR-/);
    expect(() => ditConfig('constructor')).toThrow(ArgumentError);
  });
});

describe('a model', () => {
  it('refuses configurations that do not fit together', () => {
    for (const changes of [{ patchSize: 3 }, { numHeads: 5 }, { depth: 0 }, { hiddenSize: 18, numHeads: 2 }, { classDropoutProb: 1 }, { mlpRatio: -1 }, { inputSize: Number.NaN }]) {
      expect(() => createModel('DiT-S/2', { init: 'zeros', changes }), JSON.stringify(changes)).toThrow(ArgumentError);
    }
    for (const changes of [{ patchSize: 3 }, { encoderHeads: 7 }, { bufferSize: 0 }, { maskRatioMin: 1 }, { attentionDropout: 1 }]) {
      expect(() => createModel('MAR-B', { init: 'zeros', changes }), JSON.stringify(changes)).toThrow(ArgumentError);
    }
  });

  it('says where a tensor of the wrong shape came in', () => {
    const sit = createModel('SiT-S/2', { init: createRng(0), changes: { inputSize: 4, hiddenSize: 16, numHeads: 2, depth: 1 } });
    const y = tf.tensor1d([0], 'int32');
    expect(() => sit.forward(tf.zeros([1, 5, 4, 4]), tf.tensor1d([0]), y)).toThrow(/DiT\.forward: x has shape \[1, 5, 4, 4\]/);
    expect(() => sit.forward(tf.zeros([1, 4, 4, 4]), tf.tensor1d([0, 1]), y)).toThrow(/DiT\.forward: t/);
    for (const label of [-1, 1001]) expect(() => sit.forward(tf.zeros([1, 4, 4, 4]), tf.tensor1d([0]), tf.tensor1d([label], 'int32'))).toThrow(`indices is ${label}, expected labels from 0 to 1000`);
    sit.dispose();
  });

  it('without label dropout has no null class', () => {
    const dit = createModel('DiT-S/2', { init: createRng(0), changes: { inputSize: 4, hiddenSize: 16, numHeads: 2, depth: 1, classDropoutProb: 0 } });
    expect(() => dit.nullClass).toThrow(/no null class/);
    dit.dispose();
  });
});

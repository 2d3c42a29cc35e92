import '@tensorflow/tfjs-backend-cpu';
import { CheckpointError, ShapeError, createRng } from '@tinyfusion/core';
import { readState, toSafetensors } from '@tinyfusion/nn';
import { parseSafetensors } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { ConvClassifier, type ConvClassifierConfig, classifierFeatures, extractFeatures, loadConvClassifier } from '../src/index.js';

beforeAll(() => tf.setBackend('cpu'));

const config: ConvClassifierConfig = { inputSize: 12, inChannels: 1, width: 8, features: 16, numClasses: 4 };
const create = (seed: number) => new ConvClassifier(config, { init: createRng(seed) });
const images = (count: number, seed: number) => tf.tensor4d(createRng(seed).uniform(count * 144).map((u) => 2 * u - 1), [count, 12, 12, 1]);

describe('ConvClassifier', () => {
  it('has the parameters that its fields name, in PyTorch layouts', async () => {
    const state = await readState(create(1));
    expect(Object.fromEntries([...state].map(([name, { shape }]) => [name, shape]))).toEqual({
      'convs.0.weight': [8, 1, 3, 3], 'convs.0.bias': [8], 'norms.0.weight': [8], 'norms.0.bias': [8],
      'convs.1.weight': [16, 8, 3, 3], 'convs.1.bias': [16], 'norms.1.weight': [16], 'norms.1.bias': [16],
      'convs.2.weight': [16, 16, 3, 3], 'convs.2.bias': [16], 'norms.2.weight': [16], 'norms.2.bias': [16],
      'convs.3.weight': [16, 16, 3, 3], 'convs.3.bias': [16], 'norms.3.weight': [16], 'norms.3.bias': [16],
      'fc.weight': [4, 16], 'fc.bias': [4],
    });
  });

  it('gives logits that are linear in its features, each image by itself, and leaves nothing else', async () => {
    const classifier = create(2);
    const x = images(3, 3);
    const before = tf.memory().numTensors;
    const { features, logits } = classifier.forward(x);
    expect(tf.memory().numTensors).toBe(before + 2);
    expect(features.shape).toEqual([3, 16]);
    const [f, l, state] = [await features.array(), await logits.array(), await readState(classifier)];
    const [weight, bias] = [state.get('fc.weight')!.values, state.get('fc.bias')!.values];
    for (const [i, row] of l.entries()) {
      for (const [c, value] of row.entries()) expect(value).toBeCloseTo(f[i]!.reduce((sum, v, k) => sum + v * weight[c * 16 + k]!, bias[c]!), 5);
    }
    const alone = await classifier.forward(tf.slice(x, [1, 0, 0, 0], [1, 12, 12, 1])).features.array();
    for (const [k, value] of alone[0]!.entries()) expect(value).toBeCloseTo(f[1]![k]!, 5);
  });

  it('sends a gradient to every parameter', async () => {
    const classifier = create(4);
    const x = images(2, 5);
    const { grads } = tf.variableGrads(() => tf.sum(tf.square(classifier.forward(x).logits)) as tf.Scalar, classifier.parameters());
    expect(Object.keys(grads).length).toBe(18);
    for (const [name, gradient] of Object.entries(grads)) expect((await tf.max(tf.abs(gradient!)).data())[0], name).toBeGreaterThan(0);
  });

  it('comes back from its file alone', async () => {
    const classifier = create(6);
    const loaded = await loadConvClassifier(await parseSafetensors(await toSafetensors(classifier, { type: 'ConvClassifier', config })));
    expect(loaded.config).toEqual(config);
    const x = images(2, 7);
    expect(await loaded.forward(x).logits.array()).toEqual(await classifier.forward(x).logits.array());
    const foreign = await parseSafetensors(await toSafetensors(classifier, { type: 'DiT', config }));
    await expect(loadConvClassifier(foreign)).rejects.toThrow(CheckpointError);
    const { tensors, metadata } = await parseSafetensors(await toSafetensors(classifier, { type: 'ConvClassifier', config }));
    const before = tf.memory().numTensors;
    await expect(loadConvClassifier({ tensors: new Map([...tensors].slice(1)), metadata })).rejects.toThrow(CheckpointError);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('is a feature network', async () => {
    const classifier = create(8);
    const network = classifierFeatures(classifier, 'test classifier', { version: 'abc' });
    expect(network).toMatchObject({ name: 'test classifier', version: 'abc', inputSize: 12, dimension: 16, classes: 4, comparable: false });
    const before = tf.memory().numTensors;
    const { features, logits } = await extractFeatures(network, [images(2, 9), images(1, 10)]);
    expect(tf.memory().numTensors).toBe(before);
    expect([features.length, logits.length]).toEqual([3 * 16, 3 * 4]);
    const expected = classifier.forward(images(1, 10));
    expect([...features.subarray(2 * 16)]).toEqual([...(await expected.features.data())]);
  });

  it('refuses images of another size', () => {
    expect(() => create(1).forward(tf.zeros([1, 28, 28, 1]))).toThrow(ShapeError);
    expect(() => create(1).forward(tf.zeros([1, 28, 28, 1]))).toThrow('ConvClassifier.forward: images has shape [1, 28, 28, 1], expected [N, H=12, W=12, C=1]');
  });
});

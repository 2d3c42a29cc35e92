import { createRng } from '@tinyfusion/core';
import { Linear, readState } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { injectLora } from '../src/index.js';
import { Net, apart, input, onBackends, output, randomise, saved, values } from './net.js';

onBackends('LoRA', () => {
  it('changes no bit at first, and only A and B have gradients', async () => {
    const net = new Net();
    const before = await output(net);
    const adapters = injectLora(net, { init: createRng(4), rank: 2 });
    expect(await output(net)).toEqual(before);
    expect(adapters.paths).toEqual(['blocks.0.attn.qkv', 'blocks.0.mlp.fc1', 'blocks.1.attn.qkv', 'blocks.1.mlp.fc1', 'head']);
    expect(adapters.parameterCount()).toBe(2 * (4 * (6 + 10) + (6 + 4)));
    expect(net.parameters()).toEqual(adapters.parameters());
    randomise(adapters.parameters(), 5);
    const x = input();
    const { grads } = tf.variableGrads(() => tf.sum(tf.square(net.forward(x))), net.parameters());
    expect(Object.keys(grads).toSorted()).toEqual(adapters.parameters().map((p) => p.name).toSorted());
    for (const g of Object.values(grads)) expect(Math.max(...(await values(g)).map(Math.abs))).toBeGreaterThan(1e-3);
    expect(() => tf.variableGrads(() => tf.sum(net.forward(x)), [(net.head as Linear).weight])).toThrow(/trainable/);
  });

  it.each([
    ['LoRA', {}],
    ['rsLoRA', { rsLora: true }],
    ['DoRA', { dora: true }],
    ['DoRA with ranks by pattern', { dora: true, rankPattern: { qkv: 5 }, alphaPattern: { 'mlp.*': 1 } }],
  ])('%s: merged and unmerged agree, and unmerging restores the weights to the bit', async (_, options) => {
    const net = new Net();
    const original = await readState(net);
    const adapters = injectLora(net, { init: createRng(4), rank: 3, alpha: 2, ...options });
    randomise(adapters.parameters(), 6);
    const unmerged = await output(net);
    expect(apart(unmerged, await output(new Net()))).toBeGreaterThan(0.01);
    adapters.merge();
    adapters.merge();
    expect(adapters.merged).toBe(true);
    expect(apart(await output(net), unmerged)).toBeLessThan(1e-6);
    adapters.unmerge();
    expect(await output(net)).toEqual(unmerged);
    const restored = await readState(net);
    for (const [name, { values: own }] of original) expect(restored.get(name)!.values, name).toEqual(own);
    adapters.remove();
    expect(await readState(net)).toEqual(original);
  });

  it('removed merged, it leaves a plain model with the corrections in it', async () => {
    const net = new Net();
    const names = [...net.namedParameters()].map(([name]) => name);
    const adapters = injectLora(net, { init: createRng(4), dora: true, targets: ['qkv', 'head'] });
    randomise(adapters.parameters(), 6);
    const adapted = await output(net);
    const fc1 = net.blocks[0]!.mlp.fc1.weight;
    adapters.remove({ merged: true });
    expect(apart(await output(net), adapted)).toBeLessThan(1e-6);
    expect([...net.namedParameters()].map(([name]) => name)).toEqual(names);
    expect(net.parameters().length).toBe(names.length);
    expect(net.blocks[0]!.mlp.fc1.weight).toBe(fc1);
  });

  it('leaves no tensor behind', async () => {
    const net = new Net();
    const x = input();
    const before = tf.memory().numTensors;
    for (const dora of [false, true]) {
      const adapters = injectLora(net, { init: createRng(4), dora, dropout: 0.2 });
      const held = tf.memory().numTensors;
      expect(held).toBe(before + adapters.parameters().length);
      const step = () => tf.dispose(tf.variableGrads(() => tf.sum(tf.square(net.forward(x))), adapters.parameters()) as never);
      step();
      adapters.train({ rng: createRng(1) });
      step();
      adapters.eval();
      adapters.merge();
      expect(tf.memory().numTensors).toBe(held + 5); // the sums, one a layer
      net.forward(x).dispose();
      adapters.unmerge();
      adapters.add('other', { init: createRng(8), rank: 2, targets: ['head'] });
      adapters.setActive(['default', 'other'], [0.5, 2]);
      net.forward(x).dispose();
      adapters.delete('other');
      expect(tf.memory().numTensors).toBe(held);
      adapters.merge();
      adapters.remove();
      expect(tf.memory().numTensors).toBe(before);
    }
  });
});

describe('options of LoRA', () => {
  it('take layers by pattern, by name and by test, without those excluded', () => {
    const paths = (options: object) => {
      const net = new Net();
      return injectLora(net, { init: 'zeros', ...options }).paths;
    };
    expect(paths({ targets: /blocks\.1\./g })).toEqual(['blocks.1.attn.qkv', 'blocks.1.mlp.fc1']);
    expect(paths({ targets: ['qkv'] })).toEqual(['blocks.0.attn.qkv', 'blocks.1.attn.qkv']);
    expect(paths({ targets: ['kv', 'head'] })).toEqual(['head']);
    expect(paths({ targets: (_: string, layer: Linear) => layer.bias === undefined, exclude: /^blocks\.0/ })).toEqual(['blocks.1.attn.qkv']);
    expect(paths({ exclude: ['mlp.fc1', 'head'] })).toEqual(['blocks.0.attn.qkv', 'blocks.1.attn.qkv']);
    expect(() => paths({ targets: ['proj'] })).toThrow(/a choice among the linear layers: blocks\.0\.attn\.qkv, /);
  });

  it('name layers by a single name or PEFT’s word for all of them, too', () => {
    const paths = (targets: 'all-linear' | 'qkv' | 'blocks.1.mlp.fc1') => injectLora(new Net(), { init: createRng(0), targets }).paths;
    expect(paths('all-linear')).toEqual(injectLora(new Net(), { init: createRng(0) }).paths);
    expect(paths('qkv')).toEqual(['blocks.0.attn.qkv', 'blocks.1.attn.qkv']);
    expect(paths('blocks.1.mlp.fc1')).toEqual(['blocks.1.mlp.fc1']);
  });

  it('are refused in words where plain JavaScript leaves something out, and nothing is changed', () => {
    const net = new Net();
    const before = tf.memory().numTensors;
    const inject = injectLora as unknown as (root: Net, options?: object) => ReturnType<typeof injectLora>;
    expect(() => inject(net)).toThrow(/^LoraOptions\.init is \w+, expected an Rng, e\.g\. createRng\(0\), or 'zeros'/);
    expect(() => inject(net, { rank: 2 })).toThrow(/^LoraOptions\.init is \w+, expected/);
    expect(() => inject(net, { init: createRng(0), targets: 3 })).toThrow("LoraOptions.targets is 3, expected a pattern, names such as 'qkv'");
    expect(() => inject(net, { init: createRng(0), exclude: [/head/] })).toThrow('LoraOptions.exclude is [');
    expect(tf.memory().numTensors).toBe(before);
    expect(net.parameters()).toHaveLength(8);
    const adapters = injectLora(net, { init: createRng(0), dropout: 0.5 });
    expect(() => adapters.setActive('default' as never)).toThrow("LoraAdapters.setActive: names is \"default\", expected a list, such as ['default']");
    expect(() => adapters.setActive(['default'], 0.5 as never)).toThrow('LoraAdapters.setActive: weights is 0.5, expected 1 finite numbers');
    expect(() => adapters.train(createRng(0) as never)).toThrow(/^LoraAdapters\.train: rng is \w+, expected an Rng, as in train\({ rng: createRng\(0\) }\)/);
  });

  it('give ranks and alphas by the first pattern that fits the end of the path, as PEFT does', () => {
    const net = new Net(12);
    const adapters = injectLora(net, { init: 'zeros', rank: 4, alpha: 6, targets: [...['0', '1', '11'].map((i) => `blocks.${i}.attn.qkv`), 'head'], rankPattern: { '^blocks.1.attn.qkv': 2, 'kv': 9, '1.attn.*': 3, 'attn.qkv': 5 }, alphaPattern: { head: 12 } });
    const layers = new Map([...net.namedModules()].flatMap(([path, m]) => ('adapters' in m ? [[path, (m as never as { adapters: Map<string, { rank: number; scale: number }> }).adapters.get('default')!]] : [])));
    // 'kv' is no end of 'qkv': a pattern begins at a dot; '1.attn.*' fits block 1 but not 11, whose number begins the part
    expect(adapters.paths.map((path) => layers.get(path)!.rank)).toEqual([5, 2, 5, 4]);
    expect(adapters.paths.map((path) => layers.get(path)!.scale)).toEqual([6 / 5, 3, 6 / 5, 3]);
    const rs = injectLora(new Net(), { init: 'zeros', rank: 4, rsLora: true, targets: ['head'] });
    expect(rs.settings()).toEqual({ rank: 4, alpha: 8, rankPattern: {}, alphaPattern: {}, rsLora: true, dora: false, dropout: 0 });
  });

  it('are refused where they are out of range, and nothing is changed', () => {
    const net = new Net();
    const trainable = net.parameters().length;
    const refuse = (options: object, message: RegExp) => expect(() => injectLora(net, { init: 'zeros', ...options })).toThrow(message);
    refuse({ rank: 0 }, /rank is 0, expected a positive integer/);
    refuse({ rankPattern: { qkv: 1.5 } }, /rankPattern\["qkv"\] is 1\.5/);
    refuse({ rankPattern: { '(?P<x>qkv)': 2 } }, /rankPattern is "\(\?P<x>qkv\)", expected patterns that JavaScript understands/);
    refuse({ alpha: Number.NaN }, /alpha is NaN, expected a finite number/);
    refuse({ dropout: 1 }, /dropout is 1, expected a probability/);
    refuse({ name: 'a.b' }, /name is "a\.b"/);
    refuse({ name: 'parameters' }, /name is "parameters"/);
    expect(net.parameters().length).toBe(trainable);
    injectLora(net, { init: 'zeros', targets: ['head'] });
    refuse({}, /root is "head", expected a model without adapters/);
  });

  it('saves and loads, and refuses what does not fit without changing anything', async () => {
    const [a, b] = [new Net(), new Net()];
    const [from, to] = [injectLora(a, { init: createRng(4), rank: 2, dora: true }), injectLora(b, { init: createRng(9), rank: 2, dora: true })];
    randomise(from.parameters(), 6);
    const file = await saved(from.state());
    await to.load(file);
    expect(await output(b)).toEqual(await output(a));
    const net = new Net();
    const other = injectLora(net, { init: createRng(9), rank: 3 });
    const before = await output(net);
    await expect(other.load(file)).rejects.toThrow(/\[2, 6\] for blocks\.0\.attn\.qkv\.lora_A\.weight, expected \[3, 6\]/);
    await expect(injectLora(new Net(), { init: 'zeros', rank: 2, targets: ['qkv'], dora: true }).load(file)).rejects.toThrow(/9 tensors that the adapter has no place for: blocks\.0\.mlp/);
    expect(await output(net)).toEqual(before);
  });

  it.each(['F16', 'I8'] as const)('work beside weights packed as %s, which are never merged', async (packed) => {
    const layer = new Linear(6, 10, { init: { packed } });
    class Packed extends Net {
      readonly last = layer;
    }
    const net = new Packed();
    const words = Int32Array.from({ length: layer.weight.size }, (_, i) => (packed === 'F16' ? 0x3c00 | ((0x3800 + i) << 16) : 0x01020304 + i));
    tf.tidy(() => layer.weight.assign(tf.tensor(words, layer.weight.shape, 'int32')));
    if (layer.weight_scale !== undefined) tf.tidy(() => layer.weight_scale!.assign(tf.fill([10], 0.01)));
    const x = input();
    const plain = Float32Array.from(await values(layer.forward(x)));
    const adapters = injectLora(net, { init: createRng(1), dora: true });
    const adapted = net.last as Linear;
    expect(apart(await values(adapted.forward(x)), plain)).toBeLessThan(1e-6);
    randomise(adapters.parameters(), 2);
    expect(apart(await values(adapted.forward(x)), plain)).toBeGreaterThan(0.01);
    expect(() => adapters.merge()).toThrow(/last\.weight is "(F16|I8)", expected float32/);
    expect(adapters.merged).toBe(false);
  });
});

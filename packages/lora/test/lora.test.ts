import { createRng } from '@tinyfusion/core';
import { Linear, Module, readState } from '@tinyfusion/nn';
import { stateDictOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { injectLora } from '../src/index.js';

class Net extends Module {
  readonly fc1 = new Linear(6, 8, { init: createRng(1) });
  readonly fc2 = new Linear(8, 4, { init: createRng(2), bias: false });
  forward(x: tf.Tensor2D): tf.Tensor2D {
    return this.fc2.forward(tf.relu(this.fc1.forward(x)));
  }
}

const x = tf.tensor2d(createRng(3).normal(30), [5, 6]);
const values = (t: tf.Tensor) => Array.from(t.dataSync());
const far = (a: number[], b: number[]) => Math.max(...a.map((v, i) => Math.abs(v - b[i]!)));

describe('LoRA', () => {
  it('changes nothing at first, and only A and B have gradients', () => {
    const net = new Net();
    const before = values(net.forward(x));
    const adapters = injectLora(net, { init: createRng(4), rank: 2 });
    expect(values(net.forward(x))).toEqual(before);
    expect(adapters.paths).toEqual(['fc1', 'fc2']);
    expect(adapters.parameterCount()).toBe(2 * (6 + 8) + 2 * (8 + 4));
    expect(net.parameters()).toEqual(adapters.parameters());
    const { grads } = tf.variableGrads(() => tf.sum(tf.square(net.forward(x))), net.parameters());
    expect(Object.keys(grads).length).toBe(4);
  });

  it('computes the same merged and unmerged, and leaves no trace when removed', async () => {
    const net = new Net();
    const original = await readState(net);
    const tensors = tf.memory().numTensors;
    injectLora(net, { init: createRng(4) }).remove();
    expect(tf.memory().numTensors).toBe(tensors);
    const adapters = injectLora(net, { init: createRng(4), rank: 2, alpha: 3 });
    const rng = createRng(5);
    for (const p of adapters.parameters()) tf.tidy(() => p.assign(tf.tensor(rng.normal(p.size), p.shape)));
    const unmerged = values(net.forward(x));
    adapters.merge();
    adapters.merge();
    expect(far(values(net.forward(x)), unmerged)).toBeLessThan(1e-4);
    adapters.unmerge();
    expect(far(values(net.forward(x)), unmerged)).toBeLessThan(1e-4);
    adapters.remove();
    const restored = await readState(net);
    expect([...restored.keys()]).toEqual([...original.keys()]);
    for (const [name, { values: own }] of restored) expect(far([...own], [...original.get(name)!.values]), name).toBeLessThan(1e-6);
    expect(net.parameters().length).toBe(3);
  });

  it('takes layers by pattern, by name and by test, and says what there is where none fits', () => {
    expect(injectLora(new Net(), { init: 'zeros', targets: /^fc2$/ }).paths).toEqual(['fc2']);
    expect(injectLora(new Net(), { init: 'zeros', targets: ['fc1'] }).paths).toEqual(['fc1']);
    expect(injectLora(new Net(), { init: 'zeros', targets: (_, layer) => layer.bias === undefined }).paths).toEqual(['fc2']);
    expect(() => injectLora(new Net(), { init: 'zeros', targets: ['qkv'] })).toThrow(/a choice among the linear layers: fc1, fc2/);
    expect(() => injectLora(new Net(), { init: 'zeros', rank: 0 })).toThrow(/rank is 0/);
  });

  it('saves and loads, and refuses another rank without changing anything', async () => {
    const [a, b] = [new Net(), new Net()];
    const [from, to] = [injectLora(a, { init: createRng(4), rank: 2 }), injectLora(b, { init: createRng(9), rank: 2 })];
    for (const p of from.parameters()) tf.tidy(() => p.assign(tf.tensor(createRng(6).normal(p.size), p.shape)));
    const saved = Array.from(from.state(), ([name, v]) => [name, { shape: v.shape, values: v.dataSync() as Float32Array }] as const);
    await to.load(stateDictOf(saved));
    expect(values(b.forward(x))).toEqual(values(a.forward(x)));
    const other = injectLora(new Net(), { init: createRng(9), rank: 3 });
    await expect(other.load(stateDictOf(saved))).rejects.toThrow(/\[2, 6\] for fc1\.lora_A\.weight, expected \[3, 6\]/);
  });
});

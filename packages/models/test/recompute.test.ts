import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { captureFeatures, composeHooks, randomNormal, recomputing } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { DiT, createModel } from '../src/index.js';

const config = { inputSize: 8, patchSize: 2, inChannels: 4, hiddenSize: 48, depth: 6, numHeads: 4, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 5, learnSigma: true };

describe.each(['cpu', 'wasm'] as const)('gradient checkpointing on %s', (backend) => {
  beforeAll(async () => {
    await useBackend({ prefer: backend });
  });

  /** Loss, gradients and the most bytes there were at a block. */
  function step(model: DiT, hook: 'plain' | 'recomputing', parameters = model.parameters()) {
    const rng = createRng(1);
    const x = randomNormal<tf.Rank.R4>(rng, [4, 8, 8, 4]);
    const [t, y] = [tf.tensor1d([1, 200, 500, 900]), tf.tensor1d([0, 1, 2, 3], 'int32')];
    const capture = captureFeatures([2, 4]);
    const base = tf.memory().numBytes;
    let most = 0;
    const watch = composeHooks(capture.hook, (_site, h, run) => {
      const out = run(h);
      most = Math.max(most, tf.memory().numBytes - base);
      return out;
    });
    const before = tf.memory().numTensors;
    const { value, grads } = tf.variableGrads(() => {
      const out = model.forward(x, t, y, { hook: hook === 'plain' ? watch : composeHooks(watch, recomputing()) });
      const features = [...capture.take().values()];
      const loss = tf.addN([tf.mean(tf.square(out)), ...features.map((f) => tf.mean(tf.square(f)))]) as tf.Scalar;
      tf.dispose(features);
      return loss;
    }, parameters);
    const left = tf.memory().numTensors - before - 1 - Object.keys(grads).length;
    tf.dispose([x, t, y]);
    return { value, grads, most, left };
  }

  it('gives the same loss and gradients, conditions and captured features too, leaves nothing, and takes less', () => {
    const model = new DiT(config, { init: createRng(0) });
    for (const p of model.parameters()) p.assign(tf.add(p, tf.randomNormal(p.shape, 0, 0.05, 'float32', 3)));
    const plain = step(model, 'plain');
    const less = step(model, 'recomputing');
    expect(less.value.dataSync()[0]).toBe(plain.value.dataSync()[0]);
    expect(Object.keys(less.grads)).toHaveLength(Object.keys(plain.grads).length);
    let reached = 0;
    for (const [name, gradient] of Object.entries(plain.grads)) {
      const [a, b] = [gradient.dataSync(), less.grads[name]!.dataSync()];
      const scale = Math.max(...a.map(Math.abs));
      if (scale > 0) reached += 1;
      expect(Math.max(...a.map((v, i) => Math.abs(v - b[i]!)))).toBeLessThanOrEqual(1e-5 * scale + 1e-12);
    }
    expect(reached).toBe(model.parameters().length);
    expect(plain.left).toBe(0);
    expect(less.left).toBe(0);
    console.log(`${backend}: activations ${(plain.most / 1e6).toFixed(2)} MB as they are, ${(less.most / 1e6).toFixed(2)} MB recomputed`);
    expect(less.most).toBeLessThan(0.5 * plain.most);
  });

  it('computes the wanted gradients alone', () => {
    const model = createModel('DiT-S/2', { init: createRng(0), changes: config });
    const some = model.blocks[2]!.parameters();
    const less = step(model, 'recomputing', some);
    expect(Object.keys(less.grads).sort()).toEqual(some.map(({ name }) => name).sort());
    expect(less.left).toBe(0);
  });

  it('runs once outside of a gradient', () => {
    let runs = 0;
    const x = tf.zeros([1, 2, 3]) as tf.Tensor3D;
    recomputing()({ stack: 'blocks', index: 0, depth: 1 }, x, (h) => ((runs += 1), tf.add(h, 1)));
    expect(runs).toBe(1);
  });
});

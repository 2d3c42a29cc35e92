import { ArgumentError, BackendError, createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { type LoraAdapters, injectLora } from '@tinyfusion/lora';
import { DiT, compile, loadDiT, saveModel } from '@tinyfusion/models';
import { exportOnnx } from '@tinyfusion/onnx';
import { parseSafetensors } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { shallowCopy } from '../src/index.js';

const config = { inputSize: 4, patchSize: 2, inChannels: 2, hiddenSize: 16, depth: 2, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: false };

/** Draws every variable anew, so that each matters. */
function randomise(variables: Iterable<tf.Variable>, seed: number): void {
  const rng = createRng(seed);
  for (const v of variables) tf.tidy(() => v.assign(tf.tensor(rng.normal(v.size).map((n) => 0.2 * n), v.shape)));
}

/** A model with adapters 'a' and 'b'. */
function adapted(): { model: DiT; adapters: LoraAdapters } {
  const model = new DiT(config, { init: createRng(0) });
  randomise(model.parameters(), 1);
  const adapters = injectLora(model, { name: 'a', init: createRng(2), rank: 2, targets: /blocks/ });
  adapters.add('b', { init: createRng(3), rank: 2, targets: /attn/ });
  randomise(adapters.parameters('a'), 4);
  randomise(adapters.parameters('b'), 5);
  return { model, adapters };
}

const inputs = () => [tf.tensor4d(createRng(6).normal(32), [1, 4, 4, 2]), tf.tensor1d([300]), tf.tensor1d([1], 'int32')] as const;

async function output(model: DiT): Promise<number[]> {
  const [x, t, y] = inputs();
  const out = model.forward(x, t, y);
  const values = Array.from(await out.data());
  tf.dispose([x, t, y, out]);
  return values;
}

const apart = (a: readonly number[], b: readonly number[]): number => Math.max(...a.map((v, i) => Math.abs(v - b[i]!)));

describe('a model with adapters', () => {
  beforeAll(async () => {
    await useBackend({ prefer: 'wasm' });
  });

  it('is not stored, copied or exported with adapters beside its weights, and leaves nothing of the attempt', async () => {
    const { model } = adapted();
    const before = tf.memory().numTensors;
    const remedy = /blocks\.0\.\S+ is "LoraLinear", expected a layer without adapters beside its weight: merge\(\).*remove\(\).*toPeft/;
    await expect(saveModel(model)).rejects.toThrow(remedy);
    await expect(shallowCopy(model, [0])).rejects.toThrow(remedy);
    await expect(compile(model, { batch: 1, dtype: 'F16' })).rejects.toThrow(remedy);
    await expect(exportOnnx(model)).rejects.toThrow(remedy);
    expect(tf.memory().numTensors).toBe(before);
    model.dispose();
  });

  it('is a plain one to all of them once they are merged', async () => {
    const { model, adapters } = adapted();
    adapters.merge();
    const expected = await output(model);
    const loaded = await loadDiT(await parseSafetensors(await saveModel(model)));
    expect(await output(loaded)).toEqual(expected);
    const half = await shallowCopy(model, [0]);
    expect(Array.from(await half.blocks[0]!.parameters()[0]!.data())).toEqual(Array.from(await loaded.blocks[0]!.parameters()[0]!.data()));
    const compiled = await compile(model, { batch: 1, dtype: 'F16' });
    const [x, t] = inputs();
    // float16 has 11 bits
    expect(apart(Array.from(await (await compiled.denoiser([1])(x, t)).data()), expected)).toBeLessThan(0.01 * Math.max(...expected.map(Math.abs)));
    const [merged, plain] = [await exportOnnx(model), await exportOnnx(loaded)];
    expect(merged.model).toEqual(plain.model);
    adapters.unmerge();
    await expect(saveModel(model)).rejects.toThrow(ArgumentError);
  });

  it('frees merged weights too, and its adapters may be taken off afterwards', () => {
    const before = tf.memory().numTensors;
    const { model, adapters } = adapted();
    adapters.merge();
    model.dispose();
    expect(tf.memory().numTensors).toBe(before);
    adapters.remove();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('is stale once compiled, however its adapters are changed', async () => {
    const changes: Record<string, (adapters: LoraAdapters) => void> = {
      'another strength': (adapters) => adapters.setActive(['a'], [0.1]),
      'another adapter': (adapters) => adapters.setActive(['b']),
      merge: (adapters) => adapters.merge(),
      'another value': (adapters) => randomise(adapters.parameters('a'), 9),
      dropout: (adapters) => adapters.train({ rng: createRng(0) }),
      'a further adapter': (adapters) => adapters.add('c', { init: createRng(0), targets: /final/ }),
      remove: (adapters) => adapters.remove(),
    };
    for (const [name, change] of Object.entries(changes)) {
      const { model, adapters } = adapted();
      const compiled = await compile(model, { batch: 1 });
      const denoiser = compiled.denoiser([1]);
      const [x, t, y] = inputs();
      tf.dispose([y, await denoiser(x, t)]);
      expect(compiled.stale).toBe(false);
      change(adapters);
      expect(compiled.stale, name).toBe(true);
      expect(() => denoiser(x, t), name).toThrow(BackendError);
      compiled.dispose();
      const again = await compile(model, { batch: 1 });
      expect(again.stale).toBe(false);
      again.dispose();
      tf.dispose([x, t]);
      model.dispose();
    }
  });
});

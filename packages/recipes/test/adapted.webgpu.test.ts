import { BackendError, createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { injectLora } from '@tinyfusion/lora';
import { DiT, compile } from '@tinyfusion/models';
import * as tf from '@tensorflow/tfjs-core';
import { expect, it } from 'vitest';

it('a recorded step with adapters is not replayed for others, and is recorded anew with them', async () => {
  await useBackend({ prefer: 'webgpu' });
  const rng = createRng(0);
  const randomise = (variables: tf.Variable[]): void => {
    for (const v of variables) tf.tidy(() => v.assign(tf.tensor(rng.normal(v.size).map((n) => 0.2 * n), v.shape)));
  };
  const model = new DiT({ inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 1, numHeads: 2, mlpRatio: 2, classDropoutProb: 0, numClasses: 3, learnSigma: false }, { init: rng });
  randomise(model.parameters());
  const adapters = injectLora(model, { name: 'a', init: rng, rank: 2, targets: ['qkv'] });
  adapters.add('b', { init: rng, rank: 2, targets: ['qkv'] });
  randomise([...adapters.parameters('a'), ...adapters.parameters('b')]);
  const [x, t, y] = [tf.tensor4d(rng.normal(64), [1, 4, 4, 4]), tf.tensor1d([300]), tf.tensor1d([1], 'int32')];
  let before: number[] | undefined;
  for (const change of [() => {}, () => adapters.setActive(['a'], [0.1]), () => adapters.setActive(['b'])]) {
    const old = before === undefined ? undefined : await compile(model, { batch: 1 });
    change();
    if (old !== undefined) {
      expect(old.stale).toBe(true);
      expect(() => old.denoiser([1])(x, t)).toThrow(BackendError);
      old.dispose();
    }
    const compiled = await compile(model, { batch: 1 });
    expect(compiled.recorded).toBe(true);
    const got = Array.from(await (compiled.denoiser([1])(x, t) as tf.Tensor).data());
    expect(got).toEqual(Array.from(await model.forward(x, t, y).data()));
    expect(got).not.toEqual(before);
    before = got;
    compiled.dispose();
    expect(() => compiled.denoiser([1])(x, t)).toThrow('has been disposed of');
  }
});

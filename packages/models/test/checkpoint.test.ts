// Checkpoints of ours: what they say of themselves is held against their tensors before memory is taken for it.
import { ArgumentError, CancelledError, CheckpointError, createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { readState, toSafetensors } from '@tinyfusion/nn';
import { parseSafetensors, stateDictOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { AutoencoderKL, type AutoencoderConfig, DiT, type DiTConfig, MAR, type MARConfig, SiT, type StoredModel, TinyAutoencoder, configOf, createModel, loadAutoencoderKL, loadModel, loadReferenceAutoencoder, loadTinyAutoencoder, saveModel } from '../src/index.js';

beforeAll(async () => {
  await useBackend({ prefer: 'cpu' });
});

const dit: DiTConfig = { inputSize: 4, patchSize: 2, inChannels: 2, hiddenSize: 8, depth: 2, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };
const mar: MARConfig = { inputSize: 4, patchSize: 1, inChannels: 2, encoderWidth: 8, encoderDepth: 2, encoderHeads: 2, decoderWidth: 12, decoderDepth: 1, decoderHeads: 2, mlpRatio: 2, normEpsilon: 1e-6, numClasses: 3, bufferSize: 2, headDepth: 1, headWidth: 8, maskRatioMin: 0.7, labelDropProb: 0.1, attentionDropout: 0, projectionDropout: 0, diffusionBatchMul: 1 };
const vae: AutoencoderConfig = { inChannels: 3, channels: 4, channelMultipliers: [1, 2], numResBlocks: 1, latentChannels: 2, groups: 2, scalingFactor: 1, encoderAttentionLevels: [1] };
const models: Readonly<Record<string, () => StoredModel>> = {
  DiT: () => new DiT(dit, { init: createRng(0) }),
  SiT: () => new SiT({ ...dit, classDropoutProb: 0, thinned: { 0: 'mlp', 1: 'linear' } }, { init: createRng(0) }),
  MAR: () => new MAR(mar, { init: createRng(0) }),
  AutoencoderKL: () => new AutoencoderKL(vae, { init: createRng(0) }),
};

describe.each(Object.entries(models))('%s', (_type, make) => {
  it('comes back, also with the metadata of the file it came from', async () => {
    const model = make();
    const first = await parseSafetensors(await saveModel(model, { metadata: [['how', 'trained']] }));
    const again = await loadModel(await parseSafetensors(await saveModel(await loadModel(first), { metadata: first.metadata })));
    expect(again).toBeInstanceOf(model.constructor);
    expect(configOf(again)).toEqual(configOf(model));
    expect(await readState(again)).toEqual(await readState(model));
  });
});

it('what thins a model in memory is in its configuration', () => {
  const model = new DiT(dit, { init: createRng(0) });
  delete (model.blocks[0] as { attn?: unknown }).attn;
  expect(configOf(model).thinned).toEqual({ 0: 'mlp' });
});

describe('a configuration that is none of its tensors', () => {
  const says = (field: string, own: unknown, found: unknown): string => `its configuration says ${field} ${JSON.stringify(own)}, and its tensors say ${JSON.stringify(found)}`;
  it.each([
    ['DiT', { ...dit, hiddenSize: 2 ** 23 }, says('hiddenSize', 2 ** 23, 8)],
    ['DiT', { ...dit, depth: 2 ** 30 }, says('depth', 2 ** 30, 2)],
    ['DiT', { ...dit, depth: 3 }, 'the checkpoint does not fit DiT: missing (10): blocks.2.attn.qkv.weight'],
    ['DiT', { ...dit, inputSize: 2 ** 20 }, says('inputSize', 2 ** 20, 4)],
    ['DiT', { ...dit, numClasses: 2 ** 40 }, says('numClasses', 2 ** 40, 3)],
    ['DiT', { ...dit, mlpRatio: 1e12 }, 'its configuration says mlpRatio 1000000000000, which makes MLPs of 8000000000000, and its tensors say 16'],
    ['DiT', { ...dit, depth: -1 }, 'configuration makes no DiT: DiTConfig.depth is -1, expected a positive integer'],
    ['DiT', { ...dit, numHeads: 3 }, 'DiTConfig.numHeads is 3, expected a divisor of hiddenSize 8'],
    ['DiT', { ...dit, thinned: { 7: 'mlp' } }, 'DiTConfig.thinned'],
    ['DiT', {}, 'DiTConfig.inputSize is missing'],
    ['MAR', {}, 'MARConfig.inputSize is missing'],
    ['MAR', { ...mar, headWidth: 2 ** 30 }, says('headWidth', 2 ** 30, 8)],
    ['MAR', { ...mar, bufferSize: 2 ** 30 }, says('bufferSize', 2 ** 30, 2)],
    ['MAR', { ...mar, mlpRatio: 1e9 }, 'its tensors say 16'],
    ['AutoencoderKL', {}, 'AutoencoderConfig.inChannels is missing'],
    ['AutoencoderKL', { ...vae, channelMultipliers: 3 }, 'AutoencoderConfig.channelMultipliers is 3'],
    ['AutoencoderKL', { ...vae, numResBlocks: 2 ** 30 }, says('numResBlocks', 2 ** 30, 1)],
    ['AutoencoderKL', { ...vae, scalingFactor: null }, 'AutoencoderConfig.scalingFactor is null'],
  ])('is refused: %s %j', async (type, config, message) => {
    const before = tf.memory().numTensors;
    const model = models[type]!();
    const loading = loadModel(await parseSafetensors(await toSafetensors(model, { type, config })));
    await expect(loading).rejects.toThrow(message);
    await expect(loading).rejects.toBeInstanceOf(CheckpointError);
    model.dispose();
    expect(tf.memory().numTensors).toBe(before);
  });

  it('is refused where tensors are missing that tell its shape', async () => {
    for (const [type, name] of [['DiT', 'pos_embed'], ['MAR', 'class_emb.weight'], ['AutoencoderKL', 'post_quant_conv.weight']] as const) {
      const state = await parseSafetensors(await saveModel(models[type]!()));
      const tensors = new Map(state.tensors);
      tensors.delete(name);
      await expect(loadModel({ ...state, tensors })).rejects.toThrow(`the checkpoint does not fit ${type}: tensors are missing that every ${type} has`);
    }
  });
});

it('saving and loading tell how far they are, and can be stopped', async () => {
  const model = models['AutoencoderKL']!() as AutoencoderKL;
  const tasks = new Set<string>();
  const watch = { onProgress: ({ task, step, total }: { task: string; step: number; total?: number | undefined }) => step === total && tasks.add(task) };
  const state = await parseSafetensors(await saveModel(model, watch));
  expect([...tasks]).toEqual(['read weights']);
  const large = new AutoencoderKL({ ...vae, channels: 32, groups: 32, latentChannels: 4 }, { init: 'zeros' });
  const tiny = new TinyAutoencoder({ init: 'zeros' });
  const [reference, taesd] = [stateDictOf(await readState(large)), stateDictOf(await readState(tiny))];
  for (const load of [(options: object) => loadAutoencoderKL(state, options), (options: object) => loadReferenceAutoencoder(reference, options), (options: object) => loadTinyAutoencoder(taesd, options)]) {
    tasks.clear();
    await load(watch);
    expect([...tasks]).toEqual(['load weights']);
    await expect(load({ signal: AbortSignal.abort() })).rejects.toBeInstanceOf(CancelledError);
  }
  await expect(saveModel(model, { signal: AbortSignal.abort() })).rejects.toBeInstanceOf(CancelledError);
});

it('a model is not made of first values that are none, and makes nothing of no images', () => {
  expect(() => createModel('DiT-S/8', { init: 0 as never, changes: dit })).toThrow(ArgumentError);
  const model = new DiT(dit, { init: createRng(0) });
  expect(() => model.forward(tf.zeros([0, 4, 4, 2]), tf.tensor1d([]), tf.tensor1d([], 'int32'))).toThrow('DiT.forward: x has shape [0, 4, 4, 2], expected [N from 1, H=4, W=4, C=2]');
});

// What is recorded on WebGPU draws what the model as it is draws.
import { CancelledError, type ProgressEvent, createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { injectLora } from '@tinyfusion/lora';
import { AutoencoderKL, DiT, SiT } from '@tinyfusion/models';
import type { BlockHook, Module } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { Denoisers } from '../src/denoisers.js';
import { type Prunable, type SampleOptions, sampleImages, sampleReference } from '../src/index.js';

const config = { inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 2, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };
const rng = createRng(4);

/** A model whose every weight matters. */
function lively<M extends Module>(model: M): M {
  for (const p of model.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.tensor(rng.normal(p.size).map((v) => 0.1 * v), p.shape))));
  return model;
}

const labels = [0, 1, 2, 1, 0];

describe('sampling on webgpu', () => {
  let [dit, sit, vae]: [DiT?, SiT?, AutoencoderKL?] = [];
  beforeAll(async () => {
    await useBackend({ prefer: 'webgpu' });
    dit = lively(new DiT(config, { init: createRng(1) }));
    sit = lively(new SiT(config, { init: createRng(2) }));
    vae = new AutoencoderKL({ inChannels: 1, channels: 8, channelMultipliers: [1, 1], numResBlocks: 1, latentChannels: 4, groups: 4, scalingFactor: 1 }, { init: createRng(3) });
  });

  async function drawn(model: Prunable, options: Partial<SampleOptions>): Promise<{ numbers: number[]; events: ProgressEvent[] }> {
    const [numbers, events]: [number[], ProgressEvent[]] = [[], []];
    for await (const images of sampleImages(model, vae!, labels, { steps: 4, guidance: 2.5, batchSize: 2, seed: 1, onProgress: (event) => events.push(event), ...options })) {
      numbers.push(...(await images.data()));
      images.dispose();
    }
    return { numbers, events };
  }

  const difference = (a: readonly number[], b: readonly number[]): number => Math.hypot(...a.map((v, i) => v - b[i]!)) / Math.hypot(...b);

  it.each([
    ['dpm', () => dit!, { solver: 'dpm' }],
    ['ddpm without guidance', () => dit!, { solver: 'ddpm', guidance: 1 }],
    ['Heun’s method', () => sit!, {}],
  ] as [string, () => DiT, Partial<SampleOptions>][])('draws by %s what the model as it is draws, the last, smaller batch too', async (_name, model, options) => {
    const plain = await drawn(model(), { ...options, compile: false });
    expect(plain.events.map(({ task }) => task)).not.toContain('compile');
    const tensors = tf.memory().numTensors;
    const previews: number[] = [];
    const compiled = await drawn(model(), { ...options, onStep: ({ xStart }, batch) => previews.push(batch, xStart.shape[0]!) });
    expect(tf.memory().numTensors).toBe(tensors);
    // two sizes of batch, each recorded once
    expect(compiled.events.filter(({ task, step, total }) => task === 'compile' && step === total)).toHaveLength(2);
    expect(compiled.events.filter(({ task }) => task === 'sample').map(({ step }) => step)).toEqual([2, 4, 5]);
    if (model() === dit) expect(previews).toEqual([0, 2, 0, 2, 0, 2, 0, 2, 1, 2, 1, 2, 1, 2, 1, 2, 2, 1, 2, 1, 2, 1, 2, 1]);
    expect(difference(compiled.numbers, plain.numbers)).toBeLessThan(1e-5);
    expect(compiled.numbers).toHaveLength(5 * 64);
  });

  it('draws as the references do, adaptive steps included', async () => {
    for (const [model, solver] of [[dit!, 'ddim'], [sit!, 'ode']] as const) {
      const draw = async (compile: boolean): Promise<number[]> => {
        const latents = await sampleReference(model, labels, { solver, steps: 3, rng: createRng(6), compile });
        const numbers = Array.from(await latents.data());
        latents.dispose();
        return numbers;
      };
      const plain = await draw(false);
      expect(difference(await draw(true), plain), solver).toBeLessThan(1e-5);
    }
  });

  it('leaves blocks out by a hook as the model does', async () => {
    const [x, t] = [tf.tensor4d(rng.normal(128), [2, 4, 4, 4]), tf.tensor1d([600, 20])];
    const predict = async (options: { compile?: boolean; hook?: BlockHook }): Promise<number[]> => {
      const denoisers = new Denoisers(dit!, { guidance: 2, ...options });
      const { denoiser, dispose } = await denoisers.of([0, 1]);
      const output = await denoiser(x, t);
      const numbers = Array.from(await output.data());
      output.dispose();
      dispose();
      denoisers.dispose();
      return numbers;
    };
    const hook: BlockHook = ({ index }, h, run) => (index === 0 ? h : run(h));
    const plain = await predict({ compile: false, hook });
    expect(difference(await predict({ hook }), plain)).toBeLessThan(1e-5);
    expect(difference(await predict({}), plain)).toBeGreaterThan(0.01);
  });

  it('records again where weights have changed between two batches', async () => {
    const model = lively(new DiT(config, { init: createRng(1) }));
    const both = async (compile: boolean): Promise<number[]> => {
      const before = await tf.tidy(() => tf.clone(model.parameters()[3]!)).array();
      const numbers: number[] = [];
      for await (const images of sampleImages(model, vae!, labels, { steps: 2, batchSize: 2, seed: 1, compile })) {
        numbers.push(...(await images.data()));
        tf.tidy(() => model.parameters()[3]!.assign(tf.mul(model.parameters()[3]!, 1.5)));
      }
      tf.tidy(() => model.parameters()[3]!.assign(tf.tensor(before)));
      return numbers;
    };
    const plain = await both(false);
    expect(difference(await both(true), plain)).toBeLessThan(1e-5);
    model.dispose();
  });

  it('runs the model as it is with adapters, step caching, and where asked to; can be cancelled while shaders are compiled', async () => {
    const model = new DiT(config, { init: createRng(1) });
    expect(new Denoisers(model, { guidance: 2 }).records).toBe(true);
    expect(new Denoisers(model, { guidance: 2, compile: false }).records).toBe(false);
    expect(new Denoisers(model, { guidance: 2, schedule: [true, false] }).records).toBe(false);
    expect(new Denoisers(model, { guidance: 2, around: (pass) => async (x, t) => pass(x, t, (_site, h, run) => run(h)) }).records).toBe(false);
    injectLora(model, { init: createRng(2), rank: 2 });
    expect(new Denoisers(model, { guidance: 2 }).records).toBe(false);
    const tensors = tf.memory().numTensors;
    const stop = new AbortController();
    await expect(drawn(dit!, { signal: stop.signal, onProgress: ({ task }) => task === 'compile' && stop.abort() })).rejects.toBeInstanceOf(CancelledError);
    expect(tf.memory().numTensors).toBe(tensors);
    expect(new Denoisers(dit!, { guidance: 2 }).records).toBe(true);
    await useBackend({ prefer: 'cpu' });
    expect(new Denoisers(dit!, { guidance: 2 }).records).toBe(false);
    await useBackend({ prefer: 'webgpu' });
  });
});

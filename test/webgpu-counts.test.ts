import '@tensorflow/tfjs-backend-cpu';
import { createRng } from '@tinyfusion/core';
import { resetWebgpuCounters, useBackend, webgpuCounters } from '@tinyfusion/kernels';
import { AdamW, Ema, clipFactor, globalNorm, lossAndGradients } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { DiT, type DiTConfig, compile, ditConfig } from '@tinyfusion/models';
import { installNullDevice } from './null-device.mjs';

const config: DiTConfig = { inputSize: 16, patchSize: 2, inChannels: 4, hiddenSize: 384, depth: 12, numHeads: 6, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 10, learnSigma: true };

/** Has a tensor computed. */
const upload = (id: object): void => (tf.backend() as unknown as { uploadToGPU(id: object): void }).uploadToGPU(id);

/** Dispatches that a device is asked for, by whoever. */
function countDispatches(run: () => void): number {
  const { dispatchWorkgroups } = GPUComputePassEncoder.prototype;
  let count = 0;
  GPUComputePassEncoder.prototype.dispatchWorkgroups = function (this: GPUComputePassEncoder, ...groups) {
    count += 1;
    return dispatchWorkgroups.apply(this, groups);
  };
  try {
    run();
  } finally {
    GPUComputePassEncoder.prototype.dispatchWorkgroups = dispatchWorkgroups;
  }
  return count;
}

beforeAll(async () => {
  installNullDevice();
  await useBackend({ prefer: 'webgpu' });
});

// 8 buffers a shader is what every device has; those with more take fewer dispatches
describe('a DiT of width 384 with 12 blocks, 64 tokens, batch 8', () => {
  const rng = createRng(0);
  let dit: DiT;
  let [x, t, y]: [tf.Tensor4D?, tf.Tensor1D?, tf.Tensor1D?] = [];
  beforeAll(() => {
    dit = new DiT(config, { init: 'zeros' });
    x = tf.tensor4d(rng.normal(8 * 1024), [8, 16, 16, 4]);
    t = tf.tensor1d(Array.from(rng.integers(0, 1000, 8)), 'float32');
    y = tf.tensor1d(rng.integers(0, 10, 8), 'int32');
  });

  it('computes its prediction in at most 110 dispatches, where stock tfjs has 954', () => {
    resetWebgpuCounters();
    const count = countDispatches(() => tf.tidy(() => upload(dit.forward(x!, t!, y!).dataId)));
    const { dispatches, stockDispatches } = webgpuCounters();
    expect(dispatches + stockDispatches).toBe(count);
    expect(count).toBeLessThanOrEqual(110);
    expect(count).toBeGreaterThan(80);
  });

  it.each([
    ['alone, in at most 380, where stock tfjs has 4426', false, 380],
    // one parameter with moments, gradient and average is all that 8 buffers hold
    ['with clipping and averages, in at most 460', true, 460],
  ] as const)('takes a training step %s', async (_, whole, most) => {
    const parameters = dit.parameters();
    const [optimizer, ema] = [new AdamW(parameters), whole ? new Ema(parameters, { decay: 0.999 }) : undefined];
    const step = async (): Promise<void> => {
      const { loss, gradients } = lossAndGradients(() => tf.mean(tf.square(dit.forward(x!, t!, y!))), parameters);
      const gradientScale = whole ? clipFactor(await globalNorm(gradients), 1) : 1;
      optimizer.step(gradients, { lr: 1e-3, gradientScale, ema });
      ema?.update();
      tf.dispose([loss, gradients]);
      for (const p of [...parameters, ...(ema?.averages() ?? [])]) upload(p.dataId);
    };
    await step();
    const tensors = tf.memory().numTensors;
    resetWebgpuCounters();
    await step();
    const { dispatches, stockDispatches } = webgpuCounters();
    expect(tf.memory().numTensors).toBe(tensors);
    expect(dispatches + stockDispatches).toBeLessThanOrEqual(most);
    expect(dispatches + stockDispatches).toBeGreaterThan(300);
    optimizer.dispose();
    ema?.dispose();
  });

  it('replays a compiled step in one submit, in buffers shared by what lives at different times', async () => {
    const compiled = await compile(dit, { batch: 8, cfg: { scale: 4, channels: 'all' } });
    const denoiser = compiled.denoiser(Array.from({ length: 8 }, (_, i) => i));
    denoiser(x!, t!).dispose();
    resetWebgpuCounters();
    const count = countDispatches(() => denoiser(x!, t!).dispose());
    expect(count).toBe(compiled.dispatches);
    expect(count).toBeLessThanOrEqual(125);
    expect(webgpuCounters()).toMatchObject({ submits: 1, stockDispatches: 0, pipelines: 0, bindGroups: 0, bytesAllocated: 0 });
    // 16 samples of 64 tokens: hidden values of 6 MiB, packed projections of 4.5, tokens of 1.5
    expect(compiled.bytes).toBeLessThan(32 * 2 ** 20) // two recordings, with a solver's step and without;
    compiled.dispose();
  });
});

describe('memory on the device, guided samples of one picture', () => {
  /** Bytes of weights, pool and recording, by the depth of the model. */
  async function bytes(name: string, dtype: 'F16' | 'I8' | 'I4', depth: number): Promise<number> {
    const { numBytesInGPU: before } = tf.memory() as tf.MemoryInfo & { numBytesInGPU: number };
    const dit = new DiT(ditConfig(name, { depth }), { init: { packed: dtype } });
    for (const [, variable] of dit.namedParameters()) upload(variable.dataId);
    const compiled = await compile(dit, { batch: 1, cfg: { scale: 4 } });
    compiled.denoiser([207])(tf.zeros([1, 32, 32, 4]), tf.tensor1d([999])).dispose();
    const { numBytesInGPU: after } = tf.memory() as tf.MemoryInfo & { numBytesInGPU: number };
    const used = after - before + compiled.bytes;
    compiled.dispose();
    dit.dispose();
    return used;
  }

  it.each([
    ['DiT-XL/2', 28, 'F16', 1.5e9],
    ['TinyDiT-D14', 14, 'F16', 0.8e9],
    ['DiT-XL/2', 28, 'I8', 0.8e9],
    ['DiT-XL/2', 28, 'I4', 0.5e9],
  ] as const)('%s of %i layers as %s takes less than it may', async (name, depth, dtype, most) => {
    // every block takes the same
    const [one, two] = [await bytes(name, dtype, 1), await bytes(name, dtype, 2)];
    const total = one + (depth - 1) * (two - one);
    expect(total).toBeLessThan(most);
    expect(total).toBeGreaterThan(0.5 * most);
  });
});

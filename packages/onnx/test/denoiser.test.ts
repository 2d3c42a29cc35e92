import { ArgumentError, BackendError, ShapeError, createRng } from '@tinyfusion/core';
import { GaussianDiffusion, Transport, classifierFreeGuidance, ddim, ddpm, dpmSolver, sampleOde, sampleToEnd } from '@tinyfusion/diffusion';
import { AutoencoderKL, DiT, type DiTConfig, SiT } from '@tinyfusion/models';
import * as tf from '@tensorflow/tfjs-core';
import { InferenceSession } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '../src/graph-builder.js';
import { exportOnnx, onnxDenoiser } from '../src/index.js';
import { encodeModel } from '../src/proto.js';
import { fill, noise } from './compare.js';

const config: DiTConfig = { inputSize: 8, patchSize: 2, inChannels: 4, hiddenSize: 48, depth: 2, numHeads: 3, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 5, learnSigma: true };
const model = fill(new DiT(config, { init: 'zeros' }), 1, 0.05);
const session = async (exported: { model: Uint8Array }) => InferenceSession.create(exported.model);
const start = () => noise(createRng(4), [2, 8, 8, 4]);

const labels = [1, 4];
const both = [...labels, model.nullClass, model.nullClass];
const doubled = tf.tensor1d(both, 'int32');
const process = new GaussianDiffusion({ respacing: '10' });

async function largestDifference(a: tf.Tensor, b: tf.Tensor): Promise<number> {
  const [off] = await tf.max(tf.abs(tf.sub(a, b))).data();
  return off!;
}

describe('a session as a denoiser', () => {
  it.each([
    ['ddim', (d: Parameters<typeof ddim>[1]) => ddim(process, d, { noise: start() })],
    ['ddpm', (d: Parameters<typeof ddim>[1]) => ddpm(process, d, { noise: start(), rng: createRng(9) })],
    ['dpmSolver', (d: Parameters<typeof ddim>[1]) => dpmSolver(new GaussianDiffusion(), d, { noise: start(), steps: 8 })],
  ])('%s with guidance goes the same way as with our forward', async (_, sample) => {
    const options = { scale: 3 };
    const expected = await sampleToEnd(sample(classifierFreeGuidance((x, t) => model.forward(x as tf.Tensor4D, t, doubled), options)));
    const got = await sampleToEnd(sample(classifierFreeGuidance(onnxDenoiser(await session(await exportOnnx(model)), { labels: both }), options)));
    expect(await largestDifference(got, expected)).toBeLessThan(1e-3);
    // the classes matter: other ones lead elsewhere
    const others = await sampleToEnd(sample(classifierFreeGuidance((x, t) => model.forward(x as tf.Tensor4D, t, tf.tensor1d([0, 2, 5, 5], 'int32')), options)));
    expect(await largestDifference(others, expected)).toBeGreaterThan(1e-2);
  });

  it('SiT by its ODE', async () => {
    const sit = fill(new SiT(config, { init: 'zeros' }), 2, 0.05);
    const flow = (d: Parameters<typeof sampleOde>[1]) => sampleToEnd(sampleOde(new Transport(), d, { noise: start(), method: 'heun2', steps: 6 }));
    const y = tf.tensor1d(labels, 'int32');
    const expected = await flow((x, t) => sit.forward(x as tf.Tensor4D, t, y));
    expect(await largestDifference(await flow(onnxDenoiser(await session(await exportOnnx(sit)), { labels })), expected)).toBeLessThan(1e-3);
  });

  it('leaves nothing on the device', async () => {
    const denoiser = onnxDenoiser(await session(await exportOnnx(model)), { labels: both });
    const from = start();
    const before = tf.memory().numTensors;
    (await sampleToEnd(ddim(process, classifierFreeGuidance(denoiser, { scale: 2 }), { noise: from }))).dispose();
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe('errors', () => {
  const x = start();
  const t = tf.tensor1d([10, 20]);

  it('a session of another model', async () => {
    const vae = new AutoencoderKL({ inChannels: 3, channels: 8, channelMultipliers: [1], numResBlocks: 1, latentChannels: 4, groups: 4, scalingFactor: 1 }, { init: 'zeros' });
    const other = await session(await exportOnnx(vae));
    expect(() => onnxDenoiser(other, { labels })).toThrow(ArgumentError);
    expect(() => onnxDenoiser(other, { labels })).toThrow(/inputs is \["x"\], expected x, t, y/);
  });

  it('a session whose times are integers', async () => {
    const g = new GraphBuilder(model, 'F32');
    g.output('output', g.input('x', 'F32', ['N', 8, 8, 4]), ['N', 8, 8, 4]);
    g.input('t', 'I32', ['N']);
    g.input('y', 'I32', ['N']);
    const parts: Uint8Array[] = [];
    const file = await encodeModel({ irVersion: 8, opset: 17, producer: 'test', graphName: 'other', nodes: g.nodes, inside: [], beside: [], inputs: g.inputs, outputs: g.outputs, metadata: [] });
    for await (const part of file.stream()) parts.push(part);
    const other = await InferenceSession.create(Buffer.concat(parts));
    expect(() => onnxDenoiser(other, { labels })).toThrow(ArgumentError);
    expect(() => onnxDenoiser(other, { labels })).toThrow(/session's t is "int32", expected float32/);
  });

  it('samples of another size, and another number of labels', async () => {
    const own = await session(await exportOnnx(model));
    const large = noise(createRng(1), [2, 16, 16, 4]);
    await expect(onnxDenoiser(own, { labels })(large, t)).rejects.toThrow(ShapeError);
    await expect(onnxDenoiser(own, { labels })(large, t)).rejects.toThrow(/\[2, 16, 16, 4\], expected \[N, 8, 8, 4\]/);
    await expect(onnxDenoiser(own, { labels: both })(x, t)).rejects.toThrow(/expected \[4 as there are labels/);
  });

  it('labels that are none', async () => {
    const own = await session(await exportOnnx(model));
    expect(() => onnxDenoiser(own, { labels: [1.5, 2] })).toThrow(ArgumentError);
    // the runtime finds what is beyond the table
    await expect(onnxDenoiser(own, { labels: [1, 77] })(x, t)).rejects.toThrow(BackendError);
  });
});

import { ArgumentError, CancelledError, type ProgressEvent, TinyFusionError, createRng } from '@tinyfusion/core';
import { AutoencoderKL, type AutoencoderConfig, DiT, type DiTBlock, type DiTConfig, LinearBlock, MAR, type MARConfig, SiT, TinyAutoencoder, TokenMask, withDepths } from '@tinyfusion/models';
import { Linear, MODEL_KEY, loadState, readState, replaceModule } from '@tinyfusion/nn';
import { type PruneRecord, pruneBlocks, pruneMetadata, readPruneRecord } from '@tinyfusion/pruning';
import { stateDictOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { InferenceSession } from 'onnxruntime-node';
import { describe, expect, it } from 'vitest';
import { onnxFiles } from '../src/export.js';
import { exportOnnx } from '../src/index.js';
import { placed } from '../src/placement.js';
import { contentsOf, difference, fill, noise, runOnnx } from './compare.js';

/** The MLP of a whole block. */
const mlpOf = (model: DiT, block: number) => (model.blocks[block] as DiTBlock).mlp!;

const dit: DiTConfig = { inputSize: 8, patchSize: 2, inChannels: 4, hiddenSize: 48, depth: 3, numHeads: 3, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 5, learnSigma: true };
const mar: MARConfig = {
  inputSize: 4, patchSize: 1, inChannels: 6, encoderWidth: 32, encoderDepth: 2, encoderHeads: 4, decoderWidth: 48, decoderDepth: 2, decoderHeads: 3, mlpRatio: 4, normEpsilon: 1e-6, numClasses: 5,
  bufferSize: 3, headDepth: 2, headWidth: 40, maskRatioMin: 0.7, labelDropProb: 0.1, attentionDropout: 0.1, projectionDropout: 0.1, diffusionBatchMul: 4,
};
const vae: AutoencoderConfig = { inChannels: 3, channels: 16, channelMultipliers: [1, 2], numResBlocks: 1, latentChannels: 4, groups: 8, scalingFactor: 0.2, encoderAttentionLevels: [1], decoderAttentionLevels: [1] };

// float32: the same products in another order. float16: 11 bits through some thirty layers
const f32 = 1e-4;
const f16 = 2e-2;

const ditInputs = (n: number, scale = 1000) => {
  const rng = createRng(7);
  return { x: noise(rng, [n, 8, 8, 4]) as tf.Tensor4D, t: tf.tensor1d(rng.uniform(n).map((u) => u * scale)), y: tf.tensor1d(Array.from({ length: n }, (_, i) => (i * 2 + 5) % 6), 'int32') };
};

describe('DiT and SiT', () => {
  it.each([1, 3])('DiT on %i samples', async (n) => {
    const model = fill(new DiT(dit, { init: 'zeros' }));
    const inputs = ditInputs(n);
    const expected = model.forward(inputs.x, inputs.t, inputs.y);
    const { output } = await runOnnx((await exportOnnx(model)).model, inputs);
    expect((await difference(output, expected)).absolute).toBeLessThan(f32);
  });

  it('one file serves batches of any size', async () => {
    const model = fill(new DiT(dit, { init: 'zeros' }));
    const { model: file } = await exportOnnx(model);
    for (const n of [1, 3]) {
      const inputs = ditInputs(n);
      expect((await difference((await runOnnx(file, inputs)).output, model.forward(inputs.x, inputs.t, inputs.y))).absolute).toBeLessThan(f32);
    }
  });

  it.each([true, false])('SiT, learnSigma %s', async (learnSigma) => {
    const model = fill(new SiT({ ...dit, learnSigma }, { init: 'zeros' }));
    const inputs = ditInputs(2, 1);
    const { output } = await runOnnx((await exportOnnx(model)).model, inputs);
    expect((await difference(output, model.forward(inputs.x, inputs.t, inputs.y))).absolute).toBeLessThan(f32);
  });

  it('a pruned DiT, as it is now, with its record', async () => {
    const model = fill(new DiT(dit, { init: 'zeros' }));
    const inputs = ditInputs(2);
    const whole = model.forward(inputs.x, inputs.t, inputs.y);
    pruneBlocks(model.blocks, [0, 2]);
    const record: PruneRecord = { version: 1, stack: 'blocks', kept: [0, 2], depth: 3, criterion: 'index', teacher: { name: 'DiT', sha256: '0'.repeat(64) } };
    // a checkpoint's metadata, whose word on the model is of before
    const { model: file } = await exportOnnx(model, { metadata: [[MODEL_KEY, JSON.stringify({ type: 'DiT', config: dit })], pruneMetadata(record)] });
    const { output } = await runOnnx(file, inputs);
    expect((await difference(output, model.forward(inputs.x, inputs.t, inputs.y))).absolute).toBeLessThan(f32);
    expect((await difference(output, whole)).absolute).toBeGreaterThan(1e-2);
    const { metadataProps, graph } = contentsOf(file);
    expect(metadataProps.map(({ key }) => key).toSorted()).toEqual(['tinyfusion.model', 'tinyfusion.prune']);
    const metadata = new Map(metadataProps.map(({ key, value }) => [key, value]));
    expect(readPruneRecord(metadata)).toEqual(record);
    expect(JSON.parse(metadata.get(MODEL_KEY)!)).toEqual({ type: 'DiT', config: { ...dit, depth: 2 } });
    expect(new Set(graph.initializer.flatMap(({ name }) => /^blocks\.\d+/.exec(name) ?? []))).toEqual(new Set(['blocks.0', 'blocks.1']));
  });

  it('one whose blocks were thinned in memory says of which parts it is', async () => {
    const model = fill(new DiT(dit, { init: 'zeros' }));
    delete (model.blocks[1] as { attn?: unknown }).attn;
    model.blocks[2] = fill(new LinearBlock(48, 'zeros'));
    const { metadataProps } = contentsOf((await exportOnnx(model)).model);
    expect(JSON.parse(metadataProps.find(({ key }) => key === MODEL_KEY)!.value)).toEqual({ type: 'DiT', config: { ...dit, thinned: { 1: 'mlp', 2: 'linear' } } });
  });

  it('in float16', async () => {
    const model = fill(new DiT(dit, { init: 'zeros' }));
    const inputs = ditInputs(3);
    const [half, full] = await Promise.all((['F16', 'F32'] as const).map(async (dtype) => (await exportOnnx(model, { dtype })).model));
    const off = await difference((await runOnnx(half!, inputs)).output, model.forward(inputs.x, inputs.t, inputs.y));
    expect(off.relative).toBeLessThan(f16);
    expect(off.relative).toBeGreaterThan(1e-5);
    expect(half!.length).toBeLessThan(0.6 * full!.length);
  });

  it('float16 stays finite where activations are large', async () => {
    const model = fill(new DiT(dit, { init: 'zeros' }));
    // hidden values of some hundreds: their cubes are beyond float16
    tf.tidy(() => mlpOf(model, 0).fc1.weight.assign(tf.mul(mlpOf(model, 0).fc1.weight, 150)));
    const inputs = ditInputs(2);
    const { output } = await runOnnx((await exportOnnx(model, { dtype: 'F16' })).model, inputs);
    expect((await difference(output, model.forward(inputs.x, inputs.t, inputs.y))).relative).toBeLessThan(f16);
  });

  it.each(['F16', 'I8'] as const)('weights packed as %s, expanded', async (packed) => {
    const model = new DiT(dit, { init: { packed } });
    await loadState(model, stateDictOf(await readState(fill(new DiT(dit, { init: 'zeros' })))));
    const inputs = ditInputs(2);
    const { output } = await runOnnx((await exportOnnx(model)).model, inputs);
    expect((await difference(output, model.forward(inputs.x, inputs.t, inputs.y))).absolute).toBeLessThan(f32);
  });
});

describe('MAR', () => {
  const inputsOf = (n: number, masked: number) => {
    const rng = createRng(3);
    const mask = TokenMask.ofOrders(Array.from({ length: n }, () => rng.permutation(16)), masked);
    return { tokens: noise(rng, [n, 16, 6]) as tf.Tensor3D, mask, y: Array.from({ length: n }, (_, i) => (i === 1 ? null : i)) };
  };
  const forward = (model: MAR, { tokens, mask, y }: ReturnType<typeof inputsOf>) =>
    tf.tidy(() => {
      const condition = model.classEmbedding(tf.tensor1d(y.map((label) => label ?? 0), 'int32'), tf.tensor1d(y.map((label) => (label === null ? 1 : 0))));
      return model.decode(model.encode(tokens, mask, condition), mask);
    });
  const feeds = ({ tokens, mask, y }: ReturnType<typeof inputsOf>) => ({
    tokens,
    mask: tf.tensor2d(Int32Array.from(mask.masked), [mask.samples, mask.length], 'int32'),
    y: tf.tensor1d(y.map((label) => label ?? mar.numClasses), 'int32'),
  });

  it.each([[1, 5], [3, 11], [2, 16], [2, 0]])('the transformer on %i samples with %i tokens masked', async (n, masked) => {
    const model = fill(new MAR(mar, { init: 'zeros' }));
    const inputs = inputsOf(n, masked);
    const { output } = await runOnnx((await exportOnnx(model)).model, feeds(inputs));
    expect((await difference(output, forward(model, inputs))).absolute).toBeLessThan(f32);
  });

  it('the transformer pruned, and in float16', async () => {
    const model = fill(withDepths(new MAR(mar, { init: 'zeros' }), [1, 2]));
    const inputs = inputsOf(3, 9);
    const { output } = await runOnnx((await exportOnnx(model, { dtype: 'F16' })).model, feeds(inputs));
    expect((await difference(output, forward(model, inputs))).relative).toBeLessThan(f16);
  });

  it.each([['F32', 1], ['F32', 7], ['F16', 7]] as const)('the head in %s on %i tokens', async (dtype, rows) => {
    const model = fill(new MAR(mar, { init: 'zeros' }));
    const rng = createRng(5);
    const inputs = { x: noise(rng, [rows, 6]) as tf.Tensor2D, t: tf.tensor1d(rng.uniform(rows).map((u) => 1000 * u)), c: noise(rng, [rows, 48]) as tf.Tensor2D };
    const { output } = await runOnnx((await exportOnnx(model, { part: 'head', dtype })).model, inputs);
    const off = await difference(output, model.diffloss.net.forward(inputs.x, inputs.t, inputs.c));
    if (dtype === 'F32') expect(off.absolute).toBeLessThan(f32);
    else expect(off.relative).toBeLessThan(f16);
  });
});

describe('AutoencoderKL', () => {
  it.each([['F32', 1, [4, 4]], ['F32', 3, [4, 6]], ['F16', 2, [4, 4]]] as const)('the decoder in %s, %i images of %j', async (dtype, n, [h, w]) => {
    const model = fill(new AutoencoderKL(vae, { init: 'zeros' }));
    const x = noise(createRng(2), [n, h, w, 4]) as tf.Tensor4D;
    const { output } = await runOnnx((await exportOnnx(model, { dtype })).model, { x });
    const off = await difference(output, model.decode(x));
    expect(off.relative).toBeLessThan(dtype === 'F32' ? f32 : f16);
  });

  it.each(['F32', 'F16'] as const)('the encoder in %s', async (dtype) => {
    const model = fill(new AutoencoderKL(vae, { init: 'zeros' }));
    const x = noise(createRng(2), [2, 8, 12, 3]) as tf.Tensor4D;
    const outputs = await runOnnx((await exportOnnx(model, { dtype, part: 'encoder' })).model, { x });
    const expected = model.encode(x);
    for (const name of ['mean', 'logVariance'] as const) expect((await difference(outputs[name], expected[name])).relative).toBeLessThan(dtype === 'F32' ? f32 : f16);
  });
});

describe('TAESD', () => {
  it.each([['F32', 1e-4], ['F16', 2e-2]] as const)('both ways in %s', async (dtype, tolerance) => {
    const model = fill(new TinyAutoencoder({ init: 'zeros' }), 3, 0.05);
    const [z, x] = [noise(createRng(2), [2, 1, 2, 4]) as tf.Tensor4D, noise(createRng(3), [1, 8, 16, 3]) as tf.Tensor4D];
    const run = async (part: 'decoder' | 'encoder', input: tf.Tensor) => (await runOnnx((await exportOnnx(model, { dtype, part })).model, { x: input })).output;
    expect((await difference(await run('decoder', z), model.decode(z))).relative).toBeLessThan(tolerance);
    expect((await difference(await run('encoder', x), model.toLatents(x))).relative).toBeLessThan(tolerance);
  }, 180_000);
});

describe('the file', () => {
  it('names its inputs and outputs, with a free batch, and keeps metadata', async () => {
    const { model: file, data } = await exportOnnx(new DiT(dit, { init: 'zeros' }), { metadata: [['tinyfusion.prune', '{"kept":[0,2]}']] });
    const session = await InferenceSession.create(file);
    expect(session.inputMetadata.map((input) => input.isTensor && [input.name, input.type, input.shape])).toEqual([['x', 'float32', ['N', 8, 8, 4]], ['t', 'float32', ['N']], ['y', 'int32', ['N']]]);
    expect(session.outputMetadata.map((output) => output.isTensor && [output.name, output.type, output.shape])).toEqual([['output', 'float32', ['N', 8, 8, 8]]]);
    await session.release();
    const { irVersion, opsetImport, metadataProps, graph } = contentsOf(file);
    expect({ irVersion, opset: opsetImport.map(({ domain, version }) => [domain, version]) }).toEqual({ irVersion: 8, opset: [['', 17]] });
    expect(metadataProps.find(({ key }) => key === 'tinyfusion.prune')?.value).toBe('{"kept":[0,2]}');
    const table = graph.initializer.find(({ name }) => name === 'y_embedder.embedding_table.weight');
    expect([table?.dims, table?.rawData.length]).toEqual([[6, 48], 6 * 48 * 4]);
    expect(data).toBeUndefined();
  });

  it('frees what it makes', async () => {
    const model = fill(new DiT(dit, { init: { packed: 'I8' } }));
    await exportOnnx(model, { dtype: 'F16' });
    const before = tf.memory().numTensors;
    await exportOnnx(model, { dtype: 'F16' });
    expect(tf.memory().numTensors).toBe(before);
  });

  it('is read tensor by tensor', async () => {
    const model = fill(new DiT(dit, { init: 'zeros' }));
    const { model: file } = await onnxFiles(model, {});
    const weight = mlpOf(model, 1).fc1.weight;
    const stream = file.stream();
    await stream.next();
    // the stream has begun: what it has not come to is not read
    tf.tidy(() => weight.assign(tf.fill(weight.shape, 0.25)));
    const parts: Uint8Array[] = [];
    for await (const part of stream) parts.push(part);
    const largest = Math.max(...parts.map(({ length }) => length));
    expect(largest).toBeLessThan(file.size / 10);
    const { model: bytes } = await exportOnnx(model);
    expect(bytes.length).toBe(file.size);
    const stored = contentsOf(bytes).graph.initializer.find(({ name }) => name === 'blocks.1.mlp.fc1.weight')!.rawData;
    expect(parts.some((part) => Buffer.compare(part, stored) === 0)).toBe(true);
  });

  it('tells how far it is, and can be stopped', async () => {
    const model = new DiT(dit, { init: 'zeros' });
    const steps: string[] = [];
    const onProgress = ({ task, step, total }: ProgressEvent): void => void steps.push(`${task} ${step}/${total}`);
    const { data } = await exportOnnx(model, { onProgress, externalData: true });
    for await (const _ of data!.stream());
    expect(steps.at(-1)).toBe(`write ONNX ${steps.length}/${steps.length}`);
    await expect(exportOnnx(model, { signal: AbortSignal.abort() })).rejects.toBeInstanceOf(CancelledError);
  });

  it('takes weights out of a file that protobuf could not hold', () => {
    const [little, half, quarter] = [{ size: 8 }, { size: 2 ** 30 }, { size: 2 ** 29 }];
    expect(placed([little, half, quarter])).toEqual({ inside: [little, half, quarter], beside: [], size: 0 });
    expect(placed([half, little, half])).toEqual({ inside: [little], beside: [{ tensor: half, offset: 0 }, { tensor: half, offset: 2 ** 30 }], size: 2 ** 31 });
    expect(placed([{ size: 5000 }, little, quarter], true).beside.map(({ offset }) => offset)).toEqual([0, 8192]);
    expect(() => placed([half, half], false)).toThrow(ArgumentError);
    expect(() => placed([half, half], false)).toThrow(/2147483648 bytes/);
  });
});

describe('errors', () => {
  it.each([
    ['another model', () => exportOnnx(new Linear(2, 2, { init: 'zeros' }) as never), /a DiT, SiT, MAR, AutoencoderKL or TinyAutoencoder/],
    ['no model', () => exportOnnx(null as never), /a DiT, SiT, MAR, AutoencoderKL or TinyAutoencoder/],
    ['a part that a DiT has not', () => exportOnnx(new DiT(dit, { init: 'zeros' }), { part: 'decoder' }), /part is "decoder"/],
    ['a part that MAR has not', () => exportOnnx(new MAR(mar, { init: 'zeros' }), { part: 'encoder' }), /'transformer' or 'head'/],
    ['a part that an autoencoder has not', () => exportOnnx(new AutoencoderKL(vae, { init: 'zeros' }), { part: 'head' }), /'decoder' or 'encoder'/],
    ['another type', () => exportOnnx(new DiT(dit, { init: 'zeros' }), { dtype: 'I8' as never }), /'F32' or 'F16'/],
    ['a path for a name', () => exportOnnx(new DiT(dit, { init: 'zeros' }), { dataName: '../x.data' }), /same folder/],
  ])('%s', async (_, act, message) => {
    const error = await act().then(() => undefined, (e: unknown) => e);
    expect(error).toBeInstanceOf(ArgumentError);
    expect((error as Error).message).toMatch(message);
  });

  it('adapters, whose sum is not in the weight', async () => {
    class Adapter extends Linear {}
    const model = new DiT(dit, { init: 'zeros' });
    replaceModule(model, 'blocks.1.attn.qkv', new Adapter(48, 144, { init: 'zeros' }));
    await expect(exportOnnx(model)).rejects.toThrow(/blocks\.1\.attn\.qkv.*merge what it adds/);
  });

  it('weights beyond float16', async () => {
    const model = fill(new DiT(dit, { init: 'zeros' }));
    tf.tidy(() => mlpOf(model, 0).fc2.weight.assign(tf.mul(mlpOf(model, 0).fc2.weight, 1e6)));
    const error = await exportOnnx(model, { dtype: 'F16' }).then(() => undefined, (e: unknown) => e);
    expect(TinyFusionError.isInstance(error)).toBe(true);
    expect((error as Error).message).toMatch(/blocks\.0\.mlp\.fc2\.weight.*float16/);
  });
});

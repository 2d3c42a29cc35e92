import { CancelledError, CheckpointError, createRng } from '@tinyfusion/core';
import { DiT, type DiTConfig } from '@tinyfusion/models';
import * as tf from '@tensorflow/tfjs-core';
import { mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InferenceSession } from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exportOnnx } from '../src/index.js';
import { writeOnnx } from '../src/node.js';
import { difference, fill, noise, runOnnx } from './compare.js';

const config: DiTConfig = { inputSize: 8, patchSize: 2, inChannels: 4, hiddenSize: 48, depth: 2, numHeads: 3, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 5, learnSigma: true };
const inputs = { x: noise(createRng(4), [3, 8, 8, 4]) as tf.Tensor4D, t: tf.tensor1d([1, 500, 999]), y: tf.tensor1d([0, 3, 5], 'int32') };

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tinyfusion-onnx-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('writeOnnx', () => {
  it.each([['F32', 1e-4], ['F16', 2e-2]] as const)('puts weights of %s beside the model, from where the runtime reads them', async (dtype, tolerance) => {
    const model = fill(new DiT(config, { init: 'zeros' }));
    const path = join(folder, `${dtype}.onnx`);
    expect(await writeOnnx(path, model, { externalData: true, dtype })).toEqual([path, `${path}.data`]);
    const [small, large] = await Promise.all([path, `${path}.data`].map(async (file) => (await stat(file)).size));
    const bytes = model.parameterCount() * (dtype === 'F16' ? 2 : 4);
    expect(small).toBeLessThan(0.3 * bytes);
    expect(large).toBeGreaterThan(0.9 * bytes);
    expect((await difference((await runOnnx(path, inputs)).output, model.forward(inputs.x, inputs.t, inputs.y))).relative).toBeLessThan(tolerance);
  });

  it('writes one file where there is room in it', async () => {
    const model = fill(new DiT(config, { init: 'zeros' }), 2);
    const path = join(folder, 'one.onnx');
    expect(await writeOnnx(path, model)).toEqual([path]);
    expect(await readdir(folder)).not.toContain('one.onnx.data');
    expect(Buffer.compare(await readFile(path), (await exportOnnx(model)).model)).toBe(0);
    expect((await difference((await runOnnx(path, inputs)).output, model.forward(inputs.x, inputs.t, inputs.y))).relative).toBeLessThan(1e-4);
  });

  it('makes the folder, says where it cannot, and leaves old files as they are where it fails', async () => {
    const model = fill(new DiT(config, { init: 'zeros' }));
    const file = (await writeOnnx(join(folder, 'new', 'x.onnx'), model))[0]!;
    await expect(writeOnnx(join(file, 'x.onnx'), model)).rejects.toThrow(CheckpointError);
    const path = join(folder, 'old.onnx');
    await writeFile(path, 'old');
    await writeFile(`${path}.data`, 'old data');
    // the last weight cannot be written as float16: by then others have been
    tf.tidy(() => model.final_layer.linear.weight.assign(tf.fill(model.final_layer.linear.weight.shape, 1e6)));
    for (const externalData of [true, false]) await expect(writeOnnx(path, model, { externalData, dtype: 'F16' })).rejects.toThrow(/final_layer\.linear\.weight/);
    const controller = new AbortController();
    for (const externalData of [true, false]) await expect(writeOnnx(path, model, { externalData, signal: controller.signal, onProgress: ({ step }) => step === 3 && controller.abort() })).rejects.toBeInstanceOf(CancelledError);
    expect(await readFile(path, 'utf8')).toBe('old');
    expect(await readFile(`${path}.data`, 'utf8')).toBe('old data');
    expect((await readdir(folder)).filter((name) => name.endsWith('.part'))).toEqual([]);
  });
});

it('the bytes of external data are those that the session is given', async () => {
  const model = fill(new DiT(config, { init: 'zeros' }));
  const { model: file, data } = await exportOnnx(model, { externalData: true, dataName: 'weights.bin' });
  const parts: Uint8Array[] = [];
  for await (const part of data!.stream()) parts.push(part);
  const bytes = Buffer.concat(parts);
  expect(bytes.length).toBe(data!.size);
  const session = await InferenceSession.create(file, { externalData: [{ path: 'weights.bin', data: bytes }] });
  expect(session.inputNames).toEqual(['x', 't', 'y']);
  await session.release();
});

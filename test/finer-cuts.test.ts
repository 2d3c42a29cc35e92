// Cuts finer than layers: branches that go, linear layers in the place of runs; in memory, in files, and as ONNX.
import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { DiT, type DiTConfig, MAR, SiT, createModel, loadModel, saveModel } from '@tinyfusion/models';
import { LinearReplacement, branchMaskHook, maskHook, pruneMetadata, readPruneRecord, replacementHook } from '@tinyfusion/pruning';
import { finerRecord, shallowCopy } from '@tinyfusion/recipes';
import { exportOnnx } from '@tinyfusion/onnx';
import { parseSafetensors } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { beforeAll, describe, expect, it } from 'vitest';

beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

const config: DiTConfig = { inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 6, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };

/** A model whose every block does something. */
function lively<M extends DiT>(model: M): M {
  const rng = createRng(9);
  for (const p of model.parameters()) tf.tidy(() => p.assign(tf.tensor(rng.normal(p.size).map((v) => 0.2 * v), p.shape)));
  return model;
}

const draws = createRng(4);
const images = draws.normal(2 * 64);
const run = async (model: DiT, hooks: Parameters<DiT['forward']>[3] = {}): Promise<Float32Array> => {
  const out = tf.tidy(() => model.forward(tf.tensor4d(images, [2, 4, 4, 4]), tf.tensor1d([3, 500]), tf.tensor1d([0, 2], 'int32'), hooks));
  const values = (await out.data()) as Float32Array;
  out.dispose();
  return values;
};

const near = (a: Float32Array, b: Float32Array): void => {
  expect(a.length).toBe(b.length);
  let most = 0;
  for (const [i, value] of a.entries()) most = Math.max(most, Math.abs(value - b[i]!));
  expect(most).toBeLessThan(1e-5 * Math.max(...b.map(Math.abs)));
};

describe.each([['DiT', DiT], ['SiT', SiT]] as const)('%s', (_name, Family) => {
  it('without branches computes what the teacher does when they are passed over, and holds nothing of them', async () => {
    const teacher = lively(new Family(config, { init: 'zeros' }));
    const branches = { attention: [1, 4], mlp: [2] };
    const student = await shallowCopy(teacher, [0, 1, 2, 4], { branches });
    near(await run(student), await run(teacher, { hook: maskHook([0, 1, 2, 4]), branchHook: branchMaskHook(branches) }));
    expect([...student.namedParameters()].map(([name]) => name).filter((name) => /blocks\.(1|3)\.attn|blocks\.2\.mlp/.test(name))).toEqual([]);
    // cut again: what is left of a block moves with it
    const shallower = await shallowCopy(student, [1, 3]);
    near(await run(shallower), await run(student, { hook: maskHook([1, 3]) }));
    tf.dispose([...teacher.parameters(), ...student.parameters(), ...shallower.parameters()]);
  });

  it('is built again from its file alone, with linear layers that recovery trains', async () => {
    const teacher = lively(new Family(config, { init: 'zeros' }));
    const replacements = [new LinearReplacement([1, 3], 16), new LinearReplacement([5, 6], 16)];
    for (const { linear } of replacements) tf.tidy(() => linear.weight.assign(tf.randomNormal([16, 16], 0, 0.1, 'float32', 3)));
    const cut = { branches: { mlp: [3] }, replacements };
    const student = await shallowCopy(teacher, [0, 3, 4], cut);
    const expected = await run(teacher, { hook: replacementHook(replacements), branchHook: branchMaskHook(cut.branches) });
    near(await run(student), expected);
    expect(student.parameters()).toContain((student.blocks[1] as unknown as { linear: { weight: tf.Variable } }).linear.weight);

    const record = { version: 1, stack: 'blocks', kept: [0, 3, 4], depth: 6, criterion: 'index', teacher: { name: 't', sha256: '0'.repeat(64) }, ...finerRecord([0, 3, 4], cut) } as const;
    expect(record.layerMap).toEqual([[0, 0], [1, 2], [2, 3], [3, 4], [4, 5]]);
    const file = await parseSafetensors(await saveModel(student, { metadata: [pruneMetadata({ ...record, kept: [...record.kept] })] }));
    expect(readPruneRecord(file.metadata)).toMatchObject({ branches: { attention: [], mlp: [3] }, replaced: [[1, 3], [5, 6]] });
    near(await run((await loadModel(file)) as DiT), expected);
  });
});

it('is exported to ONNX as it is', async () => {
  const teacher = lively(new DiT(config, { init: 'zeros' }));
  const student = await shallowCopy(teacher, [0, 2, 4], { branches: { attention: [2], mlp: [4] }, replacements: [new LinearReplacement([5, 6], 16)] });
  const { model } = await exportOnnx(student);
  const session = await InferenceSession.create(model, { logSeverityLevel: 3 });
  const { output } = await session.run({ x: new Tensor('float32', Float32Array.from(images), [2, 4, 4, 4]), t: new Tensor('float32', [3, 500], [2]), y: new Tensor('int32', [0, 2], [2]) });
  near(output!.data as Float32Array, await run(student));
  await session.release();
});

describe('what does not fit is said', () => {
  const replacement = () => [new LinearReplacement([1, 3], 16)];
  it.each([
    ['a branch of a layer that goes', [0, 1], { branches: { mlp: [4] } }, /branches is of layer 4|"of layer 4", expected of kept layers: 0,1/],
    ['both branches of a layer that stays', [0, 1], { branches: { attention: [1], mlp: [1] } }, /at least one branch of each kept layer/],
    ['a linear layer for a layer that stays', [0, 1], { replacements: replacement() }, /of removed blocks of the teacher's 6; 0,1 are kept/],
  ])('%s', async (_name, kept, cut, message) => {
    await expect(shallowCopy(new DiT(config, { init: 'zeros' }), kept, cut)).rejects.toThrow(message);
  });

  it('a MAR, and parts that are none', async () => {
    const mar = createModel('MAR-D16', { init: 'zeros', changes: { inputSize: 2, encoderWidth: 16, decoderWidth: 16, encoderDepth: 2, decoderDepth: 2, numHeads: 2, headWidth: 16, headDepth: 1, bufferSize: 2, numClasses: 3 } as never });
    expect(mar).toBeInstanceOf(MAR);
    await expect(shallowCopy(mar, [0, 2], { branches: { mlp: [0] } })).rejects.toThrow('its blocks stay whole or go');
    for (const thinned of [{ 6: 'mlp' }, { 0: 'head' }]) expect(() => new DiT({ ...config, thinned } as never, { init: 'zeros' })).toThrow("blocks below 6, each 'attention', 'mlp' or 'linear'");
  });
});

import { CheckpointError, createRng } from '@tinyfusion/core';
import { readState } from '@tinyfusion/nn';
import { parseSafetensors, stateDictOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { useBackend } from '@tinyfusion/kernels';
import { type DiT, createModel, loadModel, loadReference, saveModel } from '../src/index.js';

const changes = { hiddenSize: 128, depth: 3, numHeads: 4, numClasses: 10, inputSize: 8 };

/** A model whose every weight matters, and its file. */
async function model(): Promise<{ dit: DiT; bytes: Uint8Array }> {
  const rng = createRng(1);
  const dit = createModel('DiT-S/2', { init: rng, changes });
  for (const p of dit.parameters()) tf.tidy(() => p.assign(tf.add(p, tf.tensor(rng.normal(p.size).map((v) => 0.03 * v), p.shape))));
  return { dit, bytes: await saveModel(dit) };
}

async function run(dit: DiT): Promise<Float32Array> {
  const rng = createRng(2);
  const y = tf.tidy(() => dit.forward(tf.tensor4d(rng.normal(2 * 8 * 8 * 4), [2, 8, 8, 4]), tf.tensor1d([10, 700]), tf.tensor1d([3, 10], 'int32')));
  const values = await y.data();
  y.dispose();
  return values as Float32Array;
}

const relative = (got: Float32Array, expected: Float32Array): number => Math.sqrt(got.reduce((sum, v, i) => sum + (v - expected[i]!) ** 2, 0) / expected.reduce((sum, v) => sum + v * v, 0));

describe.each(['wasm', 'cpu'] as const)('weights held in less than float32, on %s', (backend) => {
  beforeAll(async () => {
    await useBackend({ prefer: backend });
  });

  it.each([
    ['F16', 0.51, 1e-3],
    ['I8', 0.26, 2e-2],
    ['I4', 0.16, 2e-1],
  ] as const)('%s takes its share of the memory and gives the same prediction', async (dtype, share, tolerance) => {
    const { dit, bytes } = await model();
    const expected = await run(dit);
    const parameters = dit.parameterCount();
    const linear = [...dit.namedParameters()].filter(([name, p]) => name.endsWith('weight') && p.rank === 2 && !name.includes('embedding_table')).reduce((sum, [, p]) => sum + 4 * p.size, 0);
    const others = [...dit.namedParameters()].reduce((sum, [, p]) => sum + 4 * p.size, 0) - linear;
    dit.dispose();
    const before = tf.memory().numBytes;
    const packed = await loadReference('DiT-S/2', await parseSafetensors(bytes), { dtype, changes: { numHeads: 4 } });
    expect(tf.memory().numBytes - before).toBeLessThan(others + share * linear);
    expect(packed.parameterCount()).toBe(parameters);
    const got = await run(packed);
    expect(relative(got, expected)).toBeLessThan(tolerance);
    // what is stored from it is what it computes with, and loads again without loss
    const again = (await loadModel(await parseSafetensors(await saveModel(packed)), { dtype })) as DiT;
    expect(relative(await run(again), got)).toBeLessThan(1e-6);
    packed.dispose();
    again.dispose();
    expect(tf.memory().numBytes).toBe(before);
  });

  it('refuses values that float16 cannot hold, by name, and leaves nothing', async () => {
    const { dit } = await model();
    const values = await readState(dit);
    values.get('blocks.1.attn.qkv.weight')!.values[200] = 1e5;
    dit.dispose();
    const before = tf.memory().numTensors;
    const state = stateDictOf(values);
    await expect(loadReference('DiT-S/2', state, { dtype: 'F16', changes: { numHeads: 4 } })).rejects.toThrow(/blocks\.1\.attn\.qkv\.weight.*row 1/);
    expect(tf.memory().numTensors).toBe(before);
    await expect(loadReference('DiT-S/2', state, { dtype: 'F16', changes: { numHeads: 4 } })).rejects.toBeInstanceOf(CheckpointError);
  });
});

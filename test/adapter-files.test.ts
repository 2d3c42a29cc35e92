import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@tinyfusion/core';
import { loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { injectLora, toPeft } from '@tinyfusion/lora';
import { type DiT, loadDiT, saveModel } from '@tinyfusion/models';
import { convertJob } from '@tinyfusion/recipes/files';
import { shallowCopy } from '@tinyfusion/recipes';
import { onnxJob, pruneJob, sampleJob } from '@tinyfusion/recipes/node';
import { loadCheckpoint, writeCheckpoint } from '@tinyfusion/weights/node';
import { withHoles } from '@tinyfusion/pruning';
import * as tf from '@tensorflow/tfjs-core';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

const folder = mkdtempSync(join(tmpdir(), 'tinyfusion-adapters-'));
const at = (name: string): string => join(folder, name);
const context = { command: 'test' };

/** Whether two files have the same bytes: a matcher takes a minute for some megabytes. */
const same = (a: string, b: string): boolean => readFileSync(at(a)).equals(readFileSync(at(b)));

/** What a model makes of one latent. */
async function output(model: DiT): Promise<number[]> {
  const [x, t, y] = [tf.tensor4d(createRng(6).normal(256), [1, 8, 8, 4]), tf.tensor1d([300]), tf.tensor1d([1], 'int32')];
  const out = model.forward(x, t, y);
  const values = Array.from(await out.data());
  tf.dispose([x, t, y, out]);
  return values;
}

const apart = (a: readonly number[], b: readonly number[]): number => Math.max(...a.map((v, i) => Math.abs(v - b[i]!))) / Math.max(...b.map(Math.abs));

describe('adapters on the command line', () => {
  let halved: number[];
  let cut: number[];

  beforeAll(async () => {
    await useBackend({ prefer: 'wasm' });
    vi.spyOn(console, 'log').mockImplementation(() => {});
    const model = await loadDiT(await loadTeacher());
    writeFileSync(at('model.safetensors'), await saveModel(model));
    const adapters = injectLora(model, { init: createRng(1), rank: 2, targets: ['qkv'] });
    const rng = createRng(2);
    for (const v of adapters.parameters()) tf.tidy(() => v.assign(tf.tensor(rng.normal(v.size).map((n) => 0.2 * n), v.shape)));
    const { config, weights } = await toPeft(adapters);
    mkdirSync(at('style'));
    writeFileSync(at('style/adapter_config.json'), JSON.stringify(config));
    writeFileSync(at('style/adapter_model.safetensors'), weights);
    adapters.setActive(['default'], [0.5]);
    halved = await output(model);
    adapters.merge();
    const shallow = await shallowCopy(model, [0, 3, 11]);
    cut = await output(shallow);
    shallow.dispose();
    model.dispose();
  });
  afterAll(() => {
    vi.restoreAllMocks();
    rmSync(folder, { recursive: true });
  });

  it('convert puts them into the weights, of a folder or its file, by their strength, added up', async () => {
    const merged = async (...lora: string[]): Promise<number[]> => {
      await convertJob(at('model.safetensors'), at('merged.safetensors'), { lora }, context);
      const model = await loadDiT(await loadCheckpoint(at('merged.safetensors')));
      const out = await output(model);
      model.dispose();
      return out;
    };
    expect(apart(await merged(`${at('style')}@0.5`), halved)).toBeLessThan(1e-4);
    expect(apart(await merged(at('style/'), `${at('style/adapter_model.safetensors')}@-.5`), halved)).toBeLessThan(1e-4);
    expect(apart(await merged(at('style')), halved)).toBeGreaterThan(0.01);
  });

  it('sample draws with them, from the embedded model and from a file, however weights are held', async () => {
    const drawn = async (job: object): Promise<Buffer> => {
      await sampleJob({ classes: ['1'], steps: 1, seed: 0, out: at('image.png'), ...job }, context);
      return readFileSync(at('image.png'));
    };
    const plain = await drawn({});
    const styled = await drawn({ lora: [`${at('style')}@0.5`] });
    expect(styled).not.toEqual(plain);
    await convertJob(at('model.safetensors'), at('merged.safetensors'), { lora: [`${at('style')}@0.5`] }, context);
    // the embedded teacher is of float16, and what is merged into it too
    const fromFile = await drawn({ model: at('model.safetensors'), lora: [`${at('style')}@0.5`] });
    expect(await drawn({ model: at('merged.safetensors') })).toEqual(fromFile);
    expect(await drawn({ dtype: 'I8', lora: [`${at('style')}@0.5`] })).not.toEqual(await drawn({ dtype: 'I8' }));
  });

  it('a teacher’s is fitted to a model that was cut from it', async () => {
    await pruneJob({ model: at('model.safetensors'), keep: '0,3,11', seed: 0, out: at('shallow.safetensors') }, context);
    await convertJob(at('shallow.safetensors'), at('merged.safetensors'), { lora: [`${at('style')}@0.5`] }, context);
    const model = await loadDiT(await loadCheckpoint(at('merged.safetensors')));
    expect(apart(await output(model), cut)).toBeLessThan(1e-4);
    model.dispose();
    // the same with its teacher's numbers
    const { tensors, metadata } = withHoles(await loadCheckpoint(at('shallow.safetensors')), 'blocks', [0, 3, 11]);
    await writeCheckpoint(at('holes.safetensors'), { tensors, metadata });
    await convertJob(at('holes.safetensors'), at('from-holes.safetensors'), { lora: [`${at('style')}@0.5`] }, context);
    expect(same('from-holes.safetensors', 'merged.safetensors')).toBe(true);
  });

  it('ONNX is written with them, from a training checkpoint too', async () => {
    const { tensors, metadata } = await loadCheckpoint(at('model.safetensors'));
    const trained = new Map([...tensors].flatMap(([name, record]) => [[`model.${name}`, record] as const, [`ema.${name}`, record] as const]));
    await writeCheckpoint(at('trained.safetensors'), { tensors: trained, metadata });
    const lora = [`${at('style')}@0.5`];
    await convertJob(at('model.safetensors'), at('merged.safetensors'), { lora }, context);
    await onnxJob(at('merged.safetensors'), at('merged.onnx'), {}, context);
    await onnxJob(at('trained.safetensors'), at('trained.onnx'), { lora }, context);
    await onnxJob(at('model.safetensors'), at('plain.onnx'), {}, context);
    expect(same('trained.onnx', 'merged.onnx')).toBe(true);
    expect(same('plain.onnx', 'merged.onnx')).toBe(false);
  });

  it('what is not there, or of another model, is named', async () => {
    const convert = (lora: string) => convertJob(at('model.safetensors'), at('none.safetensors'), { lora: [lora] }, context);
    await expect(convert(at('nothing@2'))).rejects.toThrow(/--lora .*nothing: .*adapter_config\.json cannot be read/);
    await expect(convert('@2')).rejects.toThrow('--lora is "@2", expected a folder as PEFT saves it');
    mkdirSync(at('other'));
    writeFileSync(at('other/adapter_config.json'), readFileSync(at('style/adapter_config.json')));
    writeFileSync(at('other/adapter_model.safetensors'), renamed(readFileSync(at('style/adapter_model.safetensors'))));
    await expect(convert(at('other'))).rejects.toThrow(/the checkpoint has no weights of blacks\.0\.attn\.qkv.* and 8 more, which the adapter is on/);
  });
});

/** A safetensors file with the stack by another name of the same length. */
function renamed(bytes: Uint8Array): Uint8Array {
  return Buffer.from(Buffer.from(bytes).toString('latin1').replaceAll('.blocks.', '.blacks.'), 'latin1');
}

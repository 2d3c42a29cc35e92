import { readFileSync } from 'node:fs';
import '@tensorflow/tfjs-backend-cpu';
import { ArgumentError, CheckpointError, ShapeError, createRng } from '@tinyfusion/core';
import { resizeImage } from '@tinyfusion/data';
import { readState } from '@tinyfusion/nn';
import { type StateDict, type TensorRecord, parseSafetensors, stateDictOf, toFloat32 } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { DinoV2, type DinoV2Config, dinoV2Presets, dinov2Features, extractFeatures, loadDinoV2 } from '../src/index.js';
import { interpolatePositions } from '../src/interpolate-positions.js';

/** What the reference gave; made by fixtures/dinov2_tiny.py. */
let fixture: StateDict;
let cases: Record<'mlp' | 'swiglu', DinoV2Config & { inputs: [number, number, number][] }>;
beforeAll(async () => {
  await tf.setBackend('cpu');
  fixture = await parseSafetensors(readFileSync(new URL('fixtures/dinov2_tiny.safetensors', import.meta.url)));
  cases = JSON.parse(fixture.metadata.get('config')!) as typeof cases;
});

const under = (prefix: string): StateDict => ({ tensors: new Map([...fixture.tensors].flatMap(([name, record]): [string, TensorRecord][] => (name.startsWith(prefix) ? [[name.slice(prefix.length), record]] : []))), metadata: new Map() });
const values = (name: string): Promise<Float32Array> => toFloat32(fixture.tensors.get(name)!);
const config = (name: 'mlp' | 'swiglu'): DinoV2Config => {
  const { inputs: _, ...own } = cases[name];
  return own;
};
const load = (name: 'mlp' | 'swiglu') => loadDinoV2(under(`${name}.w.`), config(name));
/** The fixture's images, in [-1, 1]. */
async function images(name: 'mlp' | 'swiglu', index: number): Promise<tf.Tensor4D> {
  return tf.tensor4d((await values(`${name}.in.${index}`)).map((b) => b / 127.5 - 1), [...cases[name].inputs[index]!, 3]);
}
const normalised = (x: tf.Tensor4D): tf.Tensor4D => tf.div(tf.sub(tf.div(tf.add(x, 1), 2), [0.485, 0.456, 0.406]), [0.229, 0.224, 0.225]);

function worst(got: ArrayLike<number>, expected: Float32Array): number {
  expect(got.length).toBe(expected.length);
  return expected.reduce((most, e, i) => Math.max(most, Math.abs(e - got[i]!)), 0);
}

describe('DinoV2', () => {
  // features are of unit size; float32 sums in another order differ in the sixth digit
  for (const [name, index] of [['mlp', 0], ['mlp', 1], ['swiglu', 0], ['swiglu', 1]] as const) {
    it(`gives the reference's features: ${name}, input ${index}`, async () => {
      const [net, x] = [await load(name), normalised(await images(name, index))];
      const before = tf.memory().numTensors;
      const features = net.forward(x);
      expect(tf.memory().numTensors).toBe(before + 1);
      expect(features.shape).toEqual([cases[name].inputs[index]![0], cases[name].hiddenSize]);
      expect(worst(await features.data(), await values(`${name}.out.${index}`))).toBeLessThan(2e-5);
      net.dispose();
    });

    it(`gives the reference's position embeddings: ${name}, input ${index}`, async () => {
      const [, height, width] = cases[name].inputs[index]!;
      const record = fixture.tensors.get(`${name}.w.pos_embed`)!;
      const all = interpolatePositions(tf.tensor3d(await toFloat32(record), record.shape as [number, number, number]), { grid: cases[name].trainingSize / 14, rows: height / 14, columns: width / 14 });
      const expected = fixture.tensors.get(`${name}.pos.${index}`)!;
      expect(all.shape).toEqual([1, 1 + (height / 14) * (width / 14), cases[name].hiddenSize]);
      const got = tf.slice(all, [0, 0, 0], expected.shape as [number, number, number]);
      expect(worst(await got.data(), await toFloat32(expected))).toBeLessThan(2e-5);
    });
  }

  it('has the published names and shapes', async () => {
    const net = new DinoV2({ ...dinoV2Presets.vits14, depth: 1 }, { init: 'zeros' });
    const shapes = Object.fromEntries(Array.from(net.namedParameters(), ([name, p]) => [name, p.shape]));
    expect(shapes).toEqual({
      cls_token: [1, 1, 384], pos_embed: [1, 1370, 384], mask_token: [1, 384], 'patch_embed.proj.weight': [384, 3, 14, 14], 'patch_embed.proj.bias': [384],
      'blocks.0.norm1.weight': [384], 'blocks.0.norm1.bias': [384], 'blocks.0.attn.qkv.weight': [1152, 384], 'blocks.0.attn.qkv.bias': [1152], 'blocks.0.attn.proj.weight': [384, 384], 'blocks.0.attn.proj.bias': [384], 'blocks.0.ls1.gamma': [384],
      'blocks.0.norm2.weight': [384], 'blocks.0.norm2.bias': [384], 'blocks.0.mlp.fc1.weight': [1536, 384], 'blocks.0.mlp.fc1.bias': [1536], 'blocks.0.mlp.fc2.weight': [384, 1536], 'blocks.0.mlp.fc2.bias': [384], 'blocks.0.ls2.gamma': [384],
      'norm.weight': [384], 'norm.bias': [384],
    });
    const giant = new DinoV2({ ...dinoV2Presets.vitg14, depth: 1, trainingSize: 14 }, { init: 'zeros' });
    const mlp = Array.from(giant.namedParameters()).flatMap(([name, p]) => (name.includes('.mlp.') ? [[name, p.shape]] : []));
    expect(Object.fromEntries(mlp)).toEqual({ 'blocks.0.mlp.w12.weight': [8192, 1536], 'blocks.0.mlp.w12.bias': [8192], 'blocks.0.mlp.w3.weight': [1536, 4096], 'blocks.0.mlp.w3.bias': [1536] });
    tf.dispose([...Array.from(net.namedParameters(), ([, p]) => p), ...Array.from(giant.namedParameters(), ([, p]) => p)]);
  });

  it('finds the preset of a checkpoint by its width, and says what does not fit', async () => {
    const small = new DinoV2(dinoV2Presets.vits14, { init: 'zeros' });
    const state = await readState(small);
    state.get('norm.bias')!.values.fill(0.25);
    const loaded = await loadDinoV2(stateDictOf(state));
    expect(loaded.config).toEqual(dinoV2Presets.vits14);
    expect((await loaded.norm.bias.data())[7]).toBe(0.25);
    const before = tf.memory().numTensors;
    const register = new Map(state).set('register_tokens', { shape: [1, 4, 384], values: new Float32Array(4 * 384) });
    await expect(loadDinoV2(stateDictOf(register))).rejects.toThrow('unexpected (1): register_tokens');
    expect(tf.memory().numTensors).toBe(before);
    await expect(loadDinoV2(under('mlp.w.'))).rejects.toThrow('[1, 1, 32] for cls_token, expected a published DINOv2 of width 384, 768, 1024, 1536');
    await expect(loadDinoV2(stateDictOf([]))).rejects.toThrow(CheckpointError);
    for (const net of [small, loaded]) net.dispose();
  });

  it('refuses images and configurations that do not fit', async () => {
    const net = await load('swiglu');
    expect(() => net.forward(tf.zeros([1, 42, 40, 3]))).toThrow(ShapeError);
    expect(() => net.forward(tf.zeros([1, 42, 42, 1]))).toThrow(ShapeError);
    expect(() => new DinoV2({ ...config('swiglu'), numHeads: 3 }, { init: 'zeros' })).toThrow(ArgumentError);
    expect(() => new DinoV2({ ...config('swiglu'), trainingSize: 40 }, { init: 'zeros' })).toThrow(ArgumentError);
  });

  it('adds 1e-6 to variances', async () => {
    const net = new DinoV2(config('swiglu'), { init: 'zeros' });
    const [small, one] = [tf.tensor3d(Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? 1e-3 : -1e-3)), [1, 1, 40]), tf.ones([40])];
    net.cls_token.assign(small);
    net.norm.weight.assign(one);
    // variance 1e-6, so 1e-3/√2e-6
    const [even, odd] = await net.forward(tf.zeros([1, 14, 14, 3])).data();
    expect([even, odd]).toEqual([expect.closeTo(Math.SQRT1_2, 5), expect.closeTo(-Math.SQRT1_2, 5)]);
  });

  it('runs its blocks through hooks', async () => {
    const net = await load('swiglu');
    const seen: string[] = [];
    net.forward(tf.zeros([1, 14, 14, 3]), { branchHook: ({ stack, index, branch }, x, run) => (seen.push(`${stack}.${index}.${branch}`), run(x)) });
    expect(seen).toEqual(['blocks.0.attention', 'blocks.0.mlp', 'blocks.1.attention', 'blocks.1.mlp']);
  });
});

describe('dinov2Features', () => {
  it("gives the reference's features of images at its size", async () => {
    const network = dinov2Features(await load('mlp'), { version: 'abc' });
    expect(network).toMatchObject({ name: 'DINOv2 of width 32 and depth 2', version: 'abc', inputSize: 224, resize: 'bicubic, Pillow', dimension: 32, classes: 0, comparable: false });
    const before = tf.memory().numTensors;
    // less than half of an 8-bit step away: what was saved as bytes
    const x = tf.add(await images('mlp', 0), 0.003) as tf.Tensor4D;
    const { features, provenance } = await extractFeatures(network, [x]);
    expect(tf.memory().numTensors).toBe(before + 1); // the images before the addition
    expect(worst(features, await values('mlp.out.0'))).toBeLessThan(2e-5);
    expect(provenance.warnings.at(-1)).toContain('compare these numbers with each other');
  });

  it("resizes other images as Pillow's bicubic does", async () => {
    const net = await load('mlp');
    const pixels = Uint8Array.from(createRng(3).uniform(2 * 31 * 50 * 3), (u) => Math.floor(256 * u));
    const bytes = [0, 1].map((n) => resizeImage({ width: 50, height: 31, channels: 3, pixels: pixels.subarray(n * 4650, (n + 1) * 4650) }, 224, 224, 'bicubic'));
    const expected = net.forward(normalised(tf.stack(bytes.map((b) => tf.tensor3d(Float32Array.from(b.pixels, (p) => p / 127.5 - 1), [224, 224, 3]))) as tf.Tensor4D));
    const x = tf.tensor4d(Float32Array.from(pixels, (p) => p / 127.5 - 1), [2, 31, 50, 3]);
    const before = tf.memory().numTensors;
    const { features } = await extractFeatures(dinov2Features(net), [x]);
    expect(tf.memory().numTensors).toBe(before - 1);
    expect(worst(features, (await expected.data()) as Float32Array)).toBeLessThan(1e-6);
    expect(() => dinov2Features(net).run(tf.zeros([1, 31, 50, 3]))).toThrow(ShapeError);
    await expect(extractFeatures(dinov2Features(net), [tf.zeros([1, 31, 50, 1]) as tf.Tensor4D])).rejects.toThrow(ShapeError);
  });

  it('is comparable as ViT-L/14 alone, and says with what', async () => {
    const unused = { config: dinoV2Presets.vitl14 } as unknown as DinoV2;
    const network = dinov2Features(unused);
    expect(network).toMatchObject({ name: 'DINOv2 ViT-L/14', comparable: true, dimension: 1024 });
    const fake = { ...network, dimension: 1, run: (x: tf.Tensor4D) => ({ features: tf.tidy(() => tf.reshape(tf.mean(x, [1, 2, 3]), [-1, 1]) as tf.Tensor2D) }) };
    const { provenance } = await extractFeatures(fake, [tf.zeros([2, 224, 224, 3]) as tf.Tensor4D]);
    expect(provenance.warnings).toEqual([expect.stringContaining('FD-DINOv2')]);
    expect(dinov2Features({ config: dinoV2Presets.vitg14 } as unknown as DinoV2)).toMatchObject({ name: 'DINOv2 ViT-G/14', comparable: false });
  });
});

// Upstream's first example, `python sample.py --model DiT-D14/2 --ckpt … --seed 5464`, line by line: a checkpoint and an
// autoencoder in the published formats, and the picture that PyTorch makes of them on a CPU.
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { useBackend } from '@tinyfusion/kernels';
import { loadReferenceAutoencoder, loadTinyAutoencoder } from '@tinyfusion/models';
import { type StateDict, parseNpz, tensorParts, toFloat32, weightsOf } from '@tinyfusion/weights';
import { openCheckpoint } from '@tinyfusion/weights/node';
import * as tf from '@tensorflow/tfjs-core';
import { decode, encode } from 'fast-png';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const bin = fileURLToPath(new URL('../packages/cli/bin/tinyfusion.mjs', import.meta.url));
const program = fileURLToPath(new URL('torch/published.py', import.meta.url));
const python = ['python3', '/usr/bin/python3'].find((command) => {
  try {
    execFileSync(command, ['-c', 'import torch'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
});

describe.skipIf(python === undefined)('a published checkpoint and PyTorch (skipped where python3 has no torch)', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tinyfusion-published-'));
  const file = (name: string): string => join(folder, name);
  const run = (...args: string[]) =>
    new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
      execFile(process.execPath, [bin, ...args, '--backend', 'wasm'], { cwd: folder, timeout: 280_000 }, (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr }));
    });
  // the real one is as wide as its name says, which tells its heads
  const first = ['sample', '--model', 'DiT-D14/2', '--ckpt', 'TinyDiT-D14-MaskedKD-500K.pt', '--heads', '16', '--vae', 'sd-vae-ft-ema.bin', '--rng', 'torch-cpu', '--seed', '5464'];

  /** An array of PyTorch's side, in NHWC. */
  const expected = async (name: string): Promise<tf.Tensor4D> => {
    await using array = await openCheckpoint(file(`${name}.npy`));
    const record = array.tensors.get('array')!;
    const values = await toFloat32(record);
    return tf.tidy(() => tf.transpose(tf.tensor4d(values, record.shape as [number, number, number, number]), [0, 2, 3, 1]));
  };
  const largestError = async (got: tf.Tensor, wanted: tf.Tensor): Promise<number> => (await tf.max(tf.abs(tf.sub(got, wanted))).data())[0]!;
  const weights = async <T>(name: string, load: (state: StateDict) => Promise<T>): Promise<T> => {
    await using checkpoint = await openCheckpoint(file(name));
    return await load(weightsOf(checkpoint));
  };

  beforeAll(async () => {
    execFileSync(python!, [program, folder], { stdio: 'pipe' });
    await useBackend({ prefer: 'wasm' });
  }, 120_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("gives the reference's picture, pixel for pixel within 1 of 255 on 99 % of them", async () => {
    const { code, stderr, stdout } = await run(...first, '--out', 'picture.png');
    expect(code, stderr).toBe(0);
    expect(stdout).toContain('classes: 207 golden retriever, 360 otter');
    await using array = await openCheckpoint(file('expected.npy'));
    const { shape, ...record } = array.tensors.get('array')!;
    const wanted = await record.read();
    const picture = decode(readFileSync(file('picture.png')));
    expect([picture.height, picture.width, picture.channels]).toEqual(shape);
    const near = wanted.reduce((sum, value, i) => sum + (Math.abs(value - picture.data[i]!) <= 1 ? 1 : 0), 0);
    console.log(`pixels within 1 of 255: ${((100 * near) / wanted.length).toFixed(3)} %, equal: ${((100 * wanted.reduce((sum, value, i) => sum + (value === picture.data[i] ? 1 : 0), 0)) / wanted.length).toFixed(3)} %`);
    expect(near / wanted.length).toBeGreaterThan(0.99);
  }, 300_000);

  it('takes the averaged weights unless told otherwise, and holds them in less', async () => {
    const few = [...first, '--steps', '5'];
    const [ema, model, half, bytes] = [await run(...few, '--out', 'ema.png'), await run(...few, '--weights', 'model', '--out', 'model.png'), await run(...few, '--dtype', 'F16', '--out', 'half.png'), await run(...few, '--dtype', 'I8', '--out', 'bytes.png')];
    for (const { code, stderr } of [ema, model, half, bytes]) expect(code, stderr).toBe(0);
    const apart = (a: string, b: string): number => {
      const [one, other] = [a, b].map((name) => Array.from(decode(readFileSync(file(name))).data));
      return one!.reduce((sum, value, i) => sum + Math.abs(value - other![i]!), 0) / one!.length;
    };
    expect(apart('ema.png', 'model.png')).toBeGreaterThan(10);
    expect(apart('ema.png', 'half.png')).toBeLessThan(1);
    expect(apart('ema.png', 'bytes.png')).toBeLessThan(3);
  }, 300_000);

  it('draws many for evaluation, into an archive or a folder, and the same ones', async () => {
    const many = [...first, '--steps', '3', '--count', '5', '--batch', '2', '--classes', 'golden retriever,red panda'];
    expect((await run(...many, '--out', 'many.npz')).stderr).not.toMatch(/error/);
    expect((await run(...many, '--out', 'many')).stderr).not.toMatch(/error/);
    const archive = await parseNpz(new Uint8Array(readFileSync(file('many.npz'))));
    const images = archive.tensors.get('arr_0')!;
    expect(images.shape).toEqual([5, 64, 64, 3]);
    expect([...(await toFloat32(archive.tensors.get('arr_1')!))]).toEqual([207, 387, 207, 387, 207]);
    expect(readdirSync(file('many'))).toEqual(['000000.png', '000001.png', '000002.png', '000003.png', '000004.png']);
    const bytes = await images.read();
    const parts: number[] = [];
    for await (const part of tensorParts(images)) parts.push(...part);
    expect(Uint8Array.from(parts)).toEqual(bytes);
    for (let i = 0; i < 5; i++) expect(new Uint8Array(decode(readFileSync(file(`many/00000${i}.png`))).data.buffer)).toEqual(bytes.slice(i * 12288, (i + 1) * 12288));
    expect(readdirSync(folder).filter((name) => name.includes('.part'))).toEqual([]);
  }, 300_000);

  it('previews with TAESD, which is PyTorch’s within rounding both ways', async () => {
    const tiny = await weights('taesd.bin', loadTinyAutoencoder);
    const latents = await expected('expected_latents');
    const scaled = tf.tidy(() => tf.div(latents, tf.sqrt(tf.div(tf.sum(tf.square(tf.sub(latents, tf.mean(latents)))), latents.size - 1))) as tf.Tensor4D);
    expect(await largestError(tiny.decode(scaled), await expected('expected_tiny'))).toBeLessThan(2e-4);
    const vae = await weights('sd-vae-ft-ema.bin', loadReferenceAutoencoder);
    const images = vae.fromLatents(latents);
    expect(await largestError(tiny.toLatents(images), await expected('expected_tiny_latents'))).toBeLessThan(2e-4);
    const { mean, logVariance } = vae.encode(tf.slice(images, 0, 1));
    expect(await largestError(tf.concat([mean, logVariance], 3), await expected('expected_moments'))).toBeLessThan(2e-3);
    const { code, stderr } = await run(...first, '--steps', '10', '--preview', 'taesd.bin', '--out', 'previewed.png');
    expect(code, stderr).toBe(0);
    expect(decode(readFileSync(file('previewed.preview.png'))).width).toBe(decode(readFileSync(file('previewed.png'))).width);
    expect(existsSync(file('previewed.png'))).toBe(true);
  }, 300_000);

  it('encodes a folder of images to the features and labels that extract_features.py keeps', async () => {
    await using pictures = await openCheckpoint(file('images.npy'));
    const bytes = await pictures.tensors.get('array')!.read();
    for (const name of ['cat', 'dog']) mkdirSync(file(`train/${name}`), { recursive: true });
    const places = ['cat/a.png', 'cat/b.png', 'dog/c.png'];
    for (const [i, place] of places.entries()) writeFileSync(file(`train/${place}`), encode({ width: 64, height: 64, channels: 3, data: bytes.slice(i * 12288, (i + 1) * 12288) }));
    const encodeAll = ['encode', 'train', '--vae', 'sd-vae-ft-ema.bin', '--size', '64', '--rng', 'torch-cpu', '--batch', '2', '--out', 'features'];
    expect((await run(...encodeAll)).stdout).toContain('3 images encoded to features; 2 classes');
    const kept = async (path: string) => {
      await using array = await openCheckpoint(file(path));
      const record = array.tensors.get('array')!;
      return { shape: record.shape, values: await toFloat32(record) };
    };
    const { shape, values: wanted } = await kept('expected_features.npy');
    expect(shape).toEqual([3, 2, 4, 8, 8]);
    const agrees = async (): Promise<void> => {
      for (const i of [0, 1, 2]) {
        const { shape: own, values } = await kept(`features/imagenet64_features/${i}.npy`);
        expect(own).toEqual([2, 4, 8, 8]);
        expect(values.reduce((worst, v, j) => Math.max(worst, Math.abs(v - wanted[i * 512 + j]!)), 0)).toBeLessThan(2e-4);
        expect(await kept(`features/imagenet64_labels/${i}.npy`)).toEqual({ shape: [1], values: Float32Array.of(i === 2 ? 1 : 0) });
      }
    };
    await agrees();
    // stopped in the middle and begun again
    for (const i of [1, 2]) for (const part of ['features', 'labels']) rmSync(file(`features/imagenet64_${part}/${i}.npy`));
    expect((await run(...encodeAll)).stdout).toContain('2 images encoded to features, 1 were there');
    await agrees();
    // a broken file is named, or left out and counted
    writeFileSync(file('train/cat/broken.jpg'), 'not a picture');
    const refused = await run(...encodeAll, '--out', 'other');
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringMatching(/broken\.jpg cannot be decoded/)]);
    expect((await run(...encodeAll, '--out', 'other', '--skip-broken')).stdout).toContain('1 images encoded to other, 2 were there, 1 broken; 2 classes');
    expect(readdirSync(file('other/imagenet64_labels')).toSorted()).toEqual(['0.npy', '1.npy', '3.npy']);
  }, 120_000);
});

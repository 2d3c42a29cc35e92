// Every kind of source becomes a pack, which training reads as it reads what is in memory.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@tinyfusion/core';
import { Pack } from '@tinyfusion/data/node';
import { useBackend } from '@tinyfusion/kernels';
import { type LatentDataset, latentDataset, train } from '@tinyfusion/recipes';
import { makePack, openSampleSource, packJob, packLatents, trainTeacherJob } from '@tinyfusion/recipes/node';
import { type StateDict, decodeFloat32, encodeFloat32, safetensorsOf, writableTensor, writeNpy, writeNpz } from '@tinyfusion/weights';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { singleCollective, threadCollective, threadMemory } from '@tinyfusion/train';

const root = mkdtempSync(join(tmpdir(), 'pack-sources-'));
const context = { command: 'a test' };
afterAll(() => rmSync(root, { recursive: true }));
beforeAll(async () => {
  await useBackend({ prefer: 'wasm' });
});

const tensorOfLabels = (labels: readonly number[]) => ({ dtype: 'I64' as const, shape: [labels.length], bytes: new Uint8Array(BigInt64Array.from(labels, BigInt).buffer) });
const halves = (bytes: Uint8Array): number[] => [...decodeFloat32(bytes, 'F16')];

async function packed(source: string, name: string, options = {}): Promise<Pack> {
  const out = join(root, name);
  await using opened = await openSampleSource(source, { size: 4, ...options });
  await makePack(opened, out, { batchSize: 2, ...options });
  return Pack.open(out);
}

describe('a pack is made of', () => {
  it('a folder of images: bytes, plain and flipped', async () => {
    const folder = join(root, 'images');
    for (const [i, name] of ['cat', 'dog'].entries()) {
      mkdirSync(join(folder, name), { recursive: true });
      for (let k = 0; k < 2; k++) await sharp(Buffer.from(Array.from({ length: 48 }, (_, j) => 50 * i + 20 * k + j)), { raw: { width: 4, height: 4, channels: 3 } }).png().toFile(join(folder, name, `${k}.png`));
    }
    using pack = await packed(folder, 'of-images');
    expect([pack.count, pack.info.kind, pack.info.shape, pack.info.views, pack.info.classNames]).toEqual([4, 'images', [4, 4, 3], 2, ['cat', 'dog']]);
    expect([...pack.labels]).toEqual([0, 0, 1, 1]);
    const plain = [...(await pack.read([{ index: 3 }]))];
    expect(plain).toEqual(Array.from({ length: 48 }, (_, j) => 70 + j));
    const flipped = [...(await pack.read([{ index: 3, view: 1 }]))];
    expect(flipped.slice(0, 12)).toEqual([9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2].map((j) => 70 + j));
    // a broken file is told, or left out
    writeFileSync(join(folder, 'dog', '0.png'), 'no image');
    await expect(packed(folder, 'of-broken-images')).rejects.toThrow(/0\.png cannot be decoded/);
    const broken: string[] = [];
    using rest = await packed(folder, 'without-broken', { onBroken: (path: string) => broken.push(path) });
    expect([rest.count, broken]).toEqual([3, [join('dog', '0.png')]]);
  });

  it('upstream’s .npy files: channels last', async () => {
    const [features, labels] = ['imagenet256_features', 'imagenet256_labels'].map((name) => join(root, 'npy', name)) as [string, string];
    for (const path of [features, labels]) mkdirSync(path, { recursive: true });
    const values = Float32Array.from({ length: 2 * 3 * 2 * 2 }, (_, i) => i);
    for (let i = 0; i < 5; i++) {
      writeFileSync(join(features, `${i}.npy`), writeNpy(writableTensor(values.map((v) => v + 100 * i), [2, 3, 2, 2])));
      writeFileSync(join(labels, `${i}.npy`), writeNpy(tensorOfLabels([i % 3])));
    }
    using pack = await packed(join(root, 'npy'), 'of-npy');
    expect([pack.count, pack.info.kind, pack.info.shape, pack.info.views, pack.info.classNames]).toEqual([5, 'latents', [2, 2, 3], 2, ['0', '1', '2']]);
    expect(halves(await pack.read([{ index: 4 }]))).toEqual([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11].map((v) => v + 400));
    expect(halves(await pack.read([{ index: 1, view: 1 }]))[0]).toBe(112);
    await expect(packJob(join(root, 'npy'), { vae: 'embedded', flip: true, seed: 0, out: join(root, 'no') }, context)).rejects.toThrow('has latents already');
    writeFileSync(join(labels, '2.npy'), writeNpy(tensorOfLabels([1, 2])));
    await expect(packed(join(root, 'npy'), 'of-npy-2')).rejects.toThrow(/2\.npy is no label/);
  });

  it('an .npz of images or of latents', async () => {
    const images = join(root, 'images.npz');
    writeFileSync(images, await writeNpz([['arr_0', { dtype: 'U8', shape: [3, 2, 2], bytes: Uint8Array.from({ length: 12 }, (_, i) => i) }], ['arr_1', tensorOfLabels([0, 4, 1])]]));
    using pack = await packed(images, 'of-npz', { flip: false });
    expect([pack.info.shape, pack.info.views, [...pack.labels], pack.info.classNames.length]).toEqual([[2, 2, 1], 1, [0, 4, 1], 5]);
    expect([...(await pack.read([{ index: 1 }, { index: 2 }]))]).toEqual([4, 5, 6, 7, 8, 9, 10, 11]);
    const latents = join(root, 'latents.npz');
    writeFileSync(latents, await writeNpz([['latents', writableTensor(Float32Array.from({ length: 24 }, (_, i) => i), [2, 3, 2, 2], 'F16')], ['y', tensorOfLabels([1, 0])]], { compress: true }));
    using second = await packed(latents, 'of-latents', { classes: 7 });
    expect([second.info.shape, second.info.views, second.info.classNames.length]).toEqual([[2, 2, 3], 1, 7]);
    expect(halves(await second.read([{ index: 1 }]))).toEqual([12, 16, 20, 13, 17, 21, 14, 18, 22, 15, 19, 23]);
    const bad = join(root, 'bad.npz');
    writeFileSync(bad, await writeNpz([['arr_0', { dtype: 'U8', shape: [2, 2, 2], bytes: new Uint8Array(8) }], ['arr_1', tensorOfLabels([0])]]));
    await expect(openSampleSource(bad)).rejects.toThrow('arr_0 has 2 samples, arr_1 1 labels');
    await expect(openSampleSource(join(root, 'nowhere'))).rejects.toThrow('there is no such file or folder');
  });

  it('IDX files, and of a pack of them latents, by a command that goes on', async () => {
    const idx = join(root, 'idx');
    mkdirSync(idx);
    const header = (type: number, ...sizes: number[]): Buffer => Buffer.concat([Buffer.from([0, 0, 8, type]), ...sizes.map((size) => (() => { const b = Buffer.alloc(4); b.writeUInt32BE(size); return b; })())]);
    writeFileSync(join(idx, 'train-images-idx3-ubyte'), Buffer.concat([header(3, 30, 28, 28), Buffer.from(createRng(1).integers(0, 256, 30 * 784))]));
    writeFileSync(join(idx, 'train-labels-idx1-ubyte'), Buffer.concat([header(1, 30), Buffer.from(Array.from({ length: 30 }, (_, i) => i % 10))]));
    const said: string[] = [];
    const log = vi.spyOn(console, 'log').mockImplementation((text: string) => void said.push(text));
    try {
      const job = { flip: true, seed: 0, batch: 8 };
      await packJob(idx, { ...job, out: join(root, 'bytes') }, context);
      const stop = new AbortController();
      const cut = packJob(join(root, 'bytes'), { ...job, vae: 'embedded', out: join(root, 'resumed') }, { ...context, signal: stop.signal, onProgress: ({ step }) => step >= 16 && stop.abort() });
      await expect(cut).rejects.toMatchObject({ code: 'CANCELLED' });
      await expect(Pack.open(join(root, 'resumed'))).rejects.toThrow('not whole yet');
      await packJob(join(root, 'bytes'), { ...job, vae: 'embedded', out: join(root, 'resumed') }, context);
      await packJob(idx, { ...job, vae: 'embedded', out: join(root, 'whole') }, context);
      await packJob(idx, { ...job, vae: 'embedded', out: join(root, 'whole') }, context);
      expect(said).toEqual([`30 samples packed to ${join(root, 'bytes')}; 10 classes`, `14 samples packed to ${join(root, 'resumed')}, 16 were there; 10 classes`, `30 samples packed to ${join(root, 'whole')}; 10 classes`, `0 samples packed to ${join(root, 'whole')}, 30 were there; 10 classes`]);
    } finally {
      log.mockRestore();
    }
    using pack = await Pack.open(join(root, 'whole'));
    expect([pack.count, pack.info.shape, pack.info.views]).toEqual([30, [8, 8, 4], 2]);
    for (const name of readdirSync(join(root, 'whole')).filter((n) => n.startsWith('shard'))) expect(readFileSync(join(root, 'resumed', name))).toEqual(readFileSync(join(root, 'whole', name)));
  });
});

describe('training on a pack', () => {
  const config = { inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 2, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };
  const count = 24;
  // halves, so that both are the same to the bit
  const values = decodeFloat32(encodeFloat32(createRng(8).normal(count * 64), 'F16'), 'F16');
  const labels = Int32Array.from({ length: count }, (_, i) => i % 3);

  async function pack(): Promise<Pack> {
    const path = join(root, 'latents-24.npz');
    const first = Float32Array.from({ length: values.length }, (_, i) => {
      const [n, c, p] = [Math.floor(i / 64), Math.floor((i % 64) / 16), i % 16];
      return values[n * 64 + p * 4 + c]!;
    });
    writeFileSync(path, await writeNpz([['arr_0', writableTensor(first, [count, 4, 4, 4], 'F16')], ['arr_1', tensorOfLabels([...labels])]]));
    return packed(path, 'latents-24');
  }

  const lossesOf = async (data: LatentDataset, options: object = {}): Promise<number[]> => {
    const losses: number[] = [];
    const model = await train(data, { config, steps: 9, batchSize: 7, seed: 5, lr: 0.01, onProgress: ({ values: v }) => losses.push(v!['loss']!), ...options });
    model.dispose();
    return losses;
  };

  it('is training on the same in memory, to the bit, and goes on as it does', async () => {
    using data = await pack();
    const memory = await lossesOf(latentDataset(values, [4, 4, 4], labels));
    expect(memory).toHaveLength(9);
    expect(await lossesOf(packLatents(data))).toEqual(memory);
    // a batch that is computed in parts goes back to its place in the data for each
    for (const [i, loss] of (await lossesOf(packLatents(data), { parts: 3 })).entries()) expect(Math.abs(loss - memory[i]!) / memory[i]!).toBeLessThan(1e-5);
    await expect(lossesOf(packLatents(data), { parts: 0 })).rejects.toThrow('parts is 0, expected a positive integer');
    let saved: Uint8Array | undefined;
    await lossesOf(packLatents(data), { checkpoint: { every: 4, save: async (_: unknown, step: number, run: StateDict) => void (step === 4 && (saved = await safetensorsOf(run))) } });
    const { parseSafetensors } = await import('@tinyfusion/weights');
    expect(await lossesOf(packLatents(data), { resume: await parseSafetensors(saved!) })).toEqual(memory.slice(4));
  });

  it('is shared among ranks, each reading its own rows', async () => {
    using data = await pack();
    const alone = await lossesOf(packLatents(data), { collective: singleCollective() });
    const memory = threadMemory(3);
    const read = vi.spyOn(data, 'read');
    const [first] = await Promise.all([0, 1, 2].map((rank) => lossesOf(packLatents(data), { collective: threadCollective(memory, rank) })));
    for (const [i, loss] of first!.entries()) expect(Math.abs(loss - alone[i]!) / alone[i]!).toBeLessThan(1e-5);
    expect(new Set(read.mock.calls.map(([picks]) => picks.length))).toEqual(new Set([2, 3]));
    read.mockRestore();
  });

  it('by the command, with a model of its latents; data that changed are refused', async () => {
    (await pack()).close();
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    try {
      const small = join(root, 'config.json');
      writeFileSync(small, JSON.stringify({ hiddenSize: 16, depth: 2, numHeads: 2 }));
      const job = { family: 'DiT' as const, data: join(root, 'latents-24'), config: small, out: join(root, 'run'), steps: 4, batch: 4, seed: 0, saveEvery: 2 };
      await trainTeacherJob(job, context);
      expect(readdirSync(job.out)).toContain('model.safetensors');
      await expect(trainTeacherJob({ ...job, batch: 2, data: join(root, 'of-latents') }, context)).rejects.toThrow(/another run: .*data was/);
      await expect(trainTeacherJob({ ...job, out: join(root, 'run-2'), data: join(root, 'of-images') }, context)).rejects.toThrow('make latents of them first, e.g. tinyfusion pack');
      await expect(trainTeacherJob({ ...job, out: join(root, 'run-2'), sampleEvery: 2 }, context)).rejects.toThrow('to come with --vae');
      writeFileSync(small, JSON.stringify({ hidden: 16 }));
      await expect(trainTeacherJob({ ...job, out: join(root, 'run-2') }, context)).rejects.toThrow('hidden');
    } finally {
      log.mockRestore();
    }
  });
});

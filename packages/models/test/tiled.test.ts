import { createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { AutoencoderKL, type Decoder, decodeTiled } from '../src/index.js';

const vae = new AutoencoderKL({ inChannels: 3, channels: 8, channelMultipliers: [1, 1], numResBlocks: 1, latentChannels: 4, groups: 4, scalingFactor: 0.5 }, { init: createRng(1) });
const latents = (h: number, w: number) => tf.tensor4d(createRng(2).normal(h * w * 4), [1, h, w, 4]);

describe('tiled decoding', () => {
  it('of one tile is plain decoding', async () => {
    const z = latents(6, 5);
    const [tiled, plain] = [await decodeTiled(vae, z, { tile: 8 }), vae.fromLatents(z)];
    expect([...(await tiled.data())]).toEqual([...(await plain.data())]);
  });

  it.each([[13, 9], [8, 16], [17, 8]])('covers a picture of %i × %i latents without seams, and leaves nothing behind', async (h, w) => {
    const z = latents(h, w);
    const plain = vae.fromLatents(z);
    const before = tf.memory().numTensors;
    const seen: string[] = [];
    const tiled = await decodeTiled(vae, z, { tile: 8, overlap: 0.5, onProgress: ({ step, total }) => seen.push(`${step}/${total}`) });
    expect(tiled.shape).toEqual([1, 2 * h, 2 * w, 3]);
    expect(seen.at(-1)).toBe(`${Math.ceil(h / 4) * Math.ceil(w / 4)}/${Math.ceil(h / 4) * Math.ceil(w / 4)}`);
    expect(tf.memory().numTensors).toBe(before + 1);
    const error = (await tf.mean(tf.abs(tf.sub(tiled, plain))).data())[0]!;
    const size = (await tf.mean(tf.abs(plain)).data())[0]!;
    // norms and attention over a tile differ from those over the picture, in this random network by a third
    expect(error).toBeLessThan(0.5 * size);
  });

  it('puts every pixel in its place: a decoder of pixels alone gives the picture itself', async () => {
    const pixelwise: Decoder = { downsampling: 2, config: { scalingFactor: 2 }, decode: (z) => tf.image.resizeNearestNeighbor(z, [2 * z.shape[1], 2 * z.shape[2]]) };
    for (const [h, w, tile, overlap] of [[13, 9, 8, 0.5], [20, 20, 8, 0.25], [7, 30, 5, 0.4], [9, 9, 3, 0.34]] as const) {
      const z = tf.clipByValue(latents(h, w), -1, 1);
      const wanted = await pixelwise.decode(tf.div(z, 2)).data();
      const got = await (await decodeTiled(pixelwise, z, { tile, overlap })).data();
      expect(got.length).toBe(wanted.length);
      for (const [i, v] of got.entries()) expect(Math.abs(v - wanted[i]!)).toBeLessThan(1e-6);
    }
  });

  it('stops when told to, and refuses tiles that make no step', async () => {
    const z = latents(13, 9);
    const before = tf.memory().numTensors;
    const stop = new AbortController();
    await expect(decodeTiled(vae, z, { tile: 4, signal: stop.signal, onProgress: () => stop.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(decodeTiled(vae, z, { tile: 1, overlap: 0.9 })).rejects.toThrow(/leaves a step of one latent/);
    expect(tf.memory().numTensors).toBe(before);
  });
});

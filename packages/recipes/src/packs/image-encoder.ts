import { ArgumentError, createRng, concatenate } from '@tinyfusion/core';
import { loadAutoencoder } from '@tinyfusion/fashion-mnist';
import { type AutoencoderKL, loadAutoencoderKL, loadReferenceAutoencoder, samplePosterior } from '@tinyfusion/models';
import { stateDictHash, weightsOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import type { JobContext } from '../jobs/context.js';
import { openWeights } from '../jobs/weights-file.js';

/** Makes latents of images. */
export interface ImageEncoder {
  /** Hash of its weights. */
  hash: string;
  /** @throws ArgumentError where it takes no images of that shape */
  latentShape(images: readonly [number, number, number]): [height: number, width: number, channels: number];
  /**
   * @param images `[n, H, W, C]` in bytes
   * @param places of the samples, which name what is drawn for each
   * @returns `[n, views, h, w, c]`, of unit variance
   */
  encode(images: readonly Uint8Array[], shape: readonly [number, number, number], places: readonly number[], views: 1 | 2): Promise<Float32Array>;
  dispose(): void;
}

/** Images of the embedded autoencoder are padded from 28 to this. */
const EMBEDDED_SIDE = 32;

/**
 * An autoencoder by its file or published name, which draws from its posteriors as the references do; or `'embedded'`, that of the
 * embedded models, whose means are taken.
 */
export async function openImageEncoder(name: string, { seed }: { seed: number }, context: JobContext): Promise<ImageEncoder> {
  if (name === 'embedded') {
    const state = await loadAutoencoder();
    const vae = await loadAutoencoderKL(state);
    return encoderOf(vae, await stateDictHash(state), {
      side: EMBEDDED_SIDE,
      check: ([height, width, channels]) => {
        if (channels !== vae.config.inChannels || height > EMBEDDED_SIDE || width > EMBEDDED_SIDE) throw new ArgumentError('--vae', 'embedded', `an autoencoder of images of ${height}×${width}×${channels}: the embedded one takes grey images of 32×32 at most`);
      },
    });
  }
  await using checkpoint = await openWeights(name, context);
  const state = weightsOf(checkpoint);
  const vae = await loadReferenceAutoencoder(state);
  const { downsampling, config } = vae;
  return encoderOf(vae, await stateDictHash(state), {
    seed,
    check: ([height, width, channels]) => {
      if (channels !== config.inChannels || height % downsampling !== 0 || width % downsampling !== 0) throw new ArgumentError('images', [height, width, channels], `${config.inChannels} channels, and sides that are multiples of ${downsampling}, the autoencoder's downsampling`);
    },
  });
}

function encoderOf(vae: AutoencoderKL, hash: string, { side, seed, check }: { side?: number; seed?: number; check: (shape: readonly [number, number, number]) => void }): ImageEncoder {
  const { latentChannels, scalingFactor } = vae.config;
  const f = vae.downsampling;
  return {
    hash,
    latentShape: (shape) => {
      check(shape);
      return [(side ?? shape[0]) / f, (side ?? shape[1]) / f, latentChannels];
    },
    async encode(images, [height, width, channels], places, views) {
      const [n, inner] = [images.length, [(side ?? height) / f, (side ?? width) / f, latentChannels] as const];
      const size = views * inner[0] * inner[1] * inner[2];
      const latents = tf.tidy(() => {
        const plain = tf.sub(tf.div(tf.tensor4d(Float32Array.from(concatenate(images)), [n, height, width, channels]), 127.5), 1) as tf.Tensor4D;
        const [top, left] = [((side ?? height) - height) >> 1, ((side ?? width) - width) >> 1];
        const padded = side === undefined ? plain : tf.pad4d(plain, [[0, 0], [top, side - height - top], [left, side - width - left], [0, 0]], -1);
        const both = views === 1 ? padded : (tf.reshape(tf.stack([padded, tf.reverse(padded, 2)], 1), [2 * n, side ?? height, side ?? width, channels]) as tf.Tensor4D);
        if (seed === undefined) return vae.toLatents(both);
        const { mean, logVariance } = vae.encode(both);
        // a stream for each sample: a pack that is gone on with is the same
        const noise = concatenate(places.map((place) => createRng(seed).split(place).normal(size)));
        return tf.mul(samplePosterior(mean, logVariance, tf.tensor4d(noise, [views * n, ...inner])), scalingFactor);
      });
      const values = (await latents.data()) as Float32Array;
      latents.dispose();
      return values;
    },
    dispose: () => vae.dispose(),
  };
}

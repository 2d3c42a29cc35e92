import { cropCentre } from '@tinyfusion/recipes';
import * as tf from '@tensorflow/tfjs-core';
import type { Pixels } from '../protocol';
import { session } from './session';

/** Side of images up to which every step is decoded; of larger ones only the last is. */
const SMALL = 64;

/** Whether previews of the session's model go through its autoencoder. */
export async function decodesPreviews(): Promise<boolean> {
  const vae = await session.autoencoder();
  return vae !== undefined && session.teacher.model.config.inputSize * vae.downsampling <= SMALL;
}

/**
 * Latents as pictures: by the autoencoder, or their first three channels as red, green and blue.
 * @param latents `[N, H, W, C]`, borrowed
 */
export async function pixelsOf(latents: tf.Tensor4D, { decode }: { decode: boolean }): Promise<Pixels> {
  const vae = decode ? await session.autoencoder() : undefined;
  const count = latents.shape[0];
  const parts: tf.Tensor4D[] = [];
  // one large picture at a time: the autoencoder needs more memory than the transformer
  const step = vae === undefined || latents.shape[1] * vae.downsampling <= SMALL ? count : 1;
  try {
    for (let at = 0; at < count; at += step) parts.push(tf.tidy(() => pictures(tf.slice(latents, [at, 0, 0, 0], [step, -1, -1, -1]), vae)));
    const [, height, width, channels] = parts[0]!.shape;
    const bytes = new Uint8Array(count * height * width * channels);
    for (const [i, part] of parts.entries()) for (const [j, v] of (await part.data()).entries()) bytes[(i * bytes.length * step) / count + j] = Math.round((v + 1) * 127.5);
    return { count, height, width, channels, bytes };
  } finally {
    tf.dispose(parts);
  }
}

/** In [-1, 1]. */
function pictures(latents: tf.Tensor4D, vae: Awaited<ReturnType<typeof session.autoencoder>>): tf.Tensor4D {
  if (vae === undefined) return tf.clipByValue(tf.div(tf.slice(latents, [0, 0, 0, 0], [-1, -1, -1, Math.min(3, latents.shape[3])]), 2.5), -1, 1) as tf.Tensor4D;
  const images = tf.clipByValue(vae.fromLatents(latents), -1, 1) as tf.Tensor4D;
  return session.fitsData && images.shape[1] === 32 ? cropCentre(images, 28) : images; // the embedded ones were padded
}

import { axes } from '@tinyfusion/kernels';
import { resizeImage } from '@tinyfusion/data';
import * as tf from '@tensorflow/tfjs-core';
import { type DinoV2, dinoV2Presets } from './dinov2.js';
import type { FeatureNetwork } from './feature-network.js';

/** Options of {@link dinov2Features}. */
export interface DinoV2FeaturesOptions {
  /** Which weights these are, e.g. `stateDictHash` of the checkpoint; goes into the provenance of the features. */
  version?: string;
}

/**
 * DINOv2 as a feature network: images as 8 bits, resized to 224 × 224 as Pillow's bicubic does, normalised by
 * ImageNet's mean and deviation; features are the normalised class token. With ViT-L/14 the Fréchet distance is the
 * FD-DINOv2 of Stein et al. (2023), as `dgm-eval` measures it by default. The network stays the caller's.
 */
export function dinov2Features(net: DinoV2, { version }: DinoV2FeaturesOptions = {}): FeatureNetwork {
  const { hiddenSize, depth } = net.config;
  const preset = Object.entries(dinoV2Presets).find(([, p]) => Object.entries(p).every(([key, value]) => net.config[key as keyof typeof p] === value))?.[0];
  return {
    name: `DINOv2 ${preset === undefined ? `of width ${hiddenSize} and depth ${depth}` : `ViT-${preset[3]!.toUpperCase()}/14`}`,
    ...(version === undefined ? {} : { version }),
    inputSize: SIDE,
    resize: 'bicubic, Pillow',
    dimension: hiddenSize,
    classes: 0,
    comparable: preset === 'vitl14',
    ...(preset === 'vitl14' ? { note: 'a Fréchet distance over these features is FD-DINOv2 (Stein et al. 2023): compare it with dgm-eval’s, not with FID' } : {}),
    prepare,
    run: (images) =>
      tf.tidy(() => {
        axes('dinov2Features: images', images, 'N H W C', { H: SIDE, W: SIDE, C: 3 });
        return { features: net.forward(tf.div(tf.sub(tf.div(bytesOf(images), 255), MEAN), DEVIATION)) };
      }),
  };
}

const SIDE = 224;
const MEAN = [0.485, 0.456, 0.406];
const DEVIATION = [0.229, 0.224, 0.225];

/** Pillow's resizing works on integers, so the images are read back unless they have the right size already. */
async function prepare(images: tf.Tensor4D): Promise<tf.Tensor4D> {
  const { N, H, W } = axes('dinov2Features: images', images, 'N H W C', { C: 3 });
  if (H === SIDE && W === SIDE) return tf.clone(images);
  const bytes = tf.tidy(() => tf.cast(bytesOf(images), 'int32'));
  const pixels = Uint8Array.from(await bytes.data());
  bytes.dispose();
  const size = SIDE * SIDE * 3;
  const out = new Float32Array(N * size);
  for (let n = 0; n < N; n++) {
    const resized = resizeImage({ width: W, height: H, channels: 3, pixels: pixels.subarray(n * H * W * 3, (n + 1) * H * W * 3) }, SIDE, SIDE, 'bicubic');
    for (const [i, p] of resized.pixels.entries()) out[n * size + i] = p / 127.5 - 1;
  }
  return tf.tensor4d(out, [N, SIDE, SIDE, 3]);
}

/** Images in [-1, 1] as they would be saved, from 0 to 255. */
const bytesOf = (images: tf.Tensor4D): tf.Tensor4D => tf.clipByValue(tf.round(tf.mul(tf.add(images, 1), 127.5)), 0, 255) as tf.Tensor4D;

import type { LongTaskOptions } from '@tinyfusion/core';
import { type Float, axes } from '@tinyfusion/kernels';
import { Conv2d, type Init, Module } from '@tinyfusion/nn';
import type { StateDict } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { filled } from './filled.js';
import { repeatPixels } from './repeat-pixels.js';

/** Width of every layer. */
const WIDTH = 64;

/**
 * TAESD: a small autoencoder of Stable Diffusion's scaled latents, for previews in milliseconds. Names are diffusers'
 * (`madebyollin/taesd`). Upstream: `AutoencoderTiny` of diffusers.
 */
export class TinyAutoencoder extends Module {
  /** Its latents are scaled ones as they are. */
  readonly config = { latentChannels: 4, scalingFactor: 1 } as const;
  /** Pixels along a side for one latent. */
  readonly downsampling = 8;
  readonly encoder: Layers;
  readonly decoder: Layers;

  /** @param options `init`: an `Rng` draws first weights, `'zeros'` leaves them to a checkpoint */
  constructor({ init }: { init: Init }) {
    super();
    const conv = (from: number, to: number, options: { stride?: number; bias?: boolean } = {}): Conv2d => new Conv2d(from, to, 3, { init, padding: 1, ...options });
    const blocks = (count: number): Block[] => Array.from({ length: count }, () => new Block(init));
    const down = (): (Conv2d | Block)[] => [conv(WIDTH, WIDTH, { stride: 2, bias: false }), ...blocks(3)];
    const up = (): (typeof repeatPixels | Conv2d | Block)[] => [...blocks(3), repeatPixels, conv(WIDTH, WIDTH, { bias: false })];
    this.encoder = new Layers([conv(3, WIDTH), ...blocks(1), ...down(), ...down(), ...down(), conv(WIDTH, 4)]);
    this.decoder = new Layers([conv(4, WIDTH), tf.relu, ...up(), ...up(), ...up(), ...blocks(1), conv(WIDTH, 3)]);
  }

  /** @param x `[N, H, W, 3]` images in [-1, 1], sides multiples of 8 @returns `[N, H/8, W/8, 4]` scaled latents */
  toLatents(x: Float<'N H W C'>): tf.Tensor4D {
    axes('TinyAutoencoder.toLatents: x', x, 'N H W C', { C: 3 });
    return tf.tidy(() => this.encoder.forward(tf.div(tf.add(x, 1), 2)));
  }

  /** @param z `[N, h, w, 4]` scaled latents @returns `[N, 8·h, 8·w, 3]` images, about [-1, 1], not clipped */
  decode(z: Float<'N H W C'>): tf.Tensor4D {
    axes('TinyAutoencoder.decode: z', z, 'N H W C', { C: 4 });
    return tf.tidy(() => tf.sub(tf.mul(this.decoder.forward(tf.mul(tf.tanh(tf.div(z, 3)), 3)), 2), 1));
  }

  /** Images of scaled latents, clipped to [-1, 1]. */
  fromLatents(z: Float<'N H W C'>): tf.Tensor4D {
    return tf.tidy(() => tf.clipByValue(this.decode(z), -1, 1));
  }
}

type Layer = Conv2d | Block | ((x: tf.Tensor4D) => tf.Tensor4D);

/** Layers in turn; functions have their places but no parameters. */
class Layers extends Module {
  constructor(readonly layers: readonly Layer[]) {
    super();
  }

  forward(x: tf.Tensor4D): tf.Tensor4D {
    return this.layers.reduce((h, layer) => tf.tidy(() => (typeof layer === 'function' ? layer(h) : layer.forward(h))), x);
  }
}

/** relu(x + three convolutions). */
class Block extends Module {
  readonly conv: readonly [Conv2d, typeof tf.relu, Conv2d, typeof tf.relu, Conv2d];

  constructor(init: Init) {
    super();
    const conv = (): Conv2d => new Conv2d(WIDTH, WIDTH, 3, { init, padding: 1 });
    this.conv = [conv(), tf.relu, conv(), tf.relu, conv()];
  }

  forward(x: tf.Tensor4D): tf.Tensor4D {
    const [first, , second, , third] = this.conv;
    return tf.tidy(() => tf.relu(tf.add(x, third.forward(tf.relu(second.forward(tf.relu(first.forward(x))))))) as tf.Tensor4D);
  }
}

/**
 * TAESD from its published file, `madebyollin/taesd`'s `diffusion_pytorch_model.safetensors`.
 * @throws CheckpointError that lists what does not fit
 */
export async function loadTinyAutoencoder(state: StateDict, options: LongTaskOptions = {}): Promise<TinyAutoencoder> {
  return filled(new TinyAutoencoder({ init: 'zeros' }), state, options);
}

import { ArgumentError, type Rng } from '@tinyfusion/core';
import { type Float, attention, axes, silu } from '@tinyfusion/kernels';
import { Conv2d, GroupNorm, type Init, Module, randomNormal } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { repeatPixels } from './repeat-pixels.js';

/** The shape of an {@link AutoencoderKL}; names in brackets are latent diffusion's. */
export interface AutoencoderConfig {
  /** Channels of the images. Stable Diffusion: 3. */
  inChannels: number;
  /** Width of the first level (`ch`). Stable Diffusion: 128. */
  channels: number;
  /** Width of each level over the first (`ch_mult`); each level but the last halves the image. Stable Diffusion: [1, 2, 4, 4]. */
  channelMultipliers: readonly number[];
  /** Residual blocks a level of the encoder; the decoder has one more (`num_res_blocks`). Default upstream: 2. */
  numResBlocks: number;
  /** Channels of the latents (`embed_dim`): 4 for Stable Diffusion, 16 for MAR. */
  latentChannels: number;
  /** Groups of the group norms. Upstream: 32. */
  groups: number;
  /** What latents are multiplied by to have unit variance: 0.18215 for Stable Diffusion, 0.2325 for MAR. */
  scalingFactor: number;
  /** Levels of the encoder whose residual blocks are followed by attention, e.g. [4] for MAR's KL-16. Default: none. */
  encoderAttentionLevels?: readonly number[];
  /** The same for the decoder. Default: none. */
  decoderAttentionLevels?: readonly number[];
}

/**
 * The convolutional autoencoder of latent diffusion (Rombach et al. 2022), with a diagonal Gaussian posterior. Names
 * are latent diffusion's (`encoder.down.0.block.0.conv1.weight`). Upstream: `AutoencoderKL` of LTH14/mar's `vae.py`.
 */
export class AutoencoderKL extends Module {
  readonly config: Readonly<AutoencoderConfig>;
  readonly encoder: Encoder;
  readonly decoder: Decoder;
  readonly quant_conv: Conv2d;
  readonly post_quant_conv: Conv2d;

  /**
   * @param options `init`: an `Rng` draws first weights, `'zeros'` leaves them to a checkpoint
   * @throws ArgumentError where the configuration does not fit together
   */
  constructor(config: AutoencoderConfig, { init }: { init: Init }) {
    super();
    checkAutoencoderConfig(config);
    this.config = { ...config };
    const { latentChannels } = config;
    this.encoder = new Encoder(config, init);
    this.decoder = new Decoder(config, init);
    this.quant_conv = new Conv2d(2 * latentChannels, 2 * latentChannels, 1, { init });
    this.post_quant_conv = new Conv2d(latentChannels, latentChannels, 1, { init });
  }

  /** Pixels along a side for one latent: 8 for Stable Diffusion, 16 for MAR. */
  get downsampling(): number {
    return 2 ** (this.config.channelMultipliers.length - 1);
  }

  /**
   * The posterior of the latents, unscaled.
   * @param x `[N, H, W, C]` images in [-1, 1]; sides must be multiples of {@link downsampling}
   * @returns `mean` and `logVariance` (clamped to [-30, 20]), each `[N, H/f, W/f, latentChannels]`
   */
  encode(x: Float<'N H W C'>): { mean: tf.Tensor4D; logVariance: tf.Tensor4D } {
    const { H, W } = axes('AutoencoderKL.encode: x', x, 'N H W C', { C: this.config.inChannels });
    const f = this.downsampling;
    if (H % f !== 0 || W % f !== 0) throw new ArgumentError('AutoencoderKL.encode: size', [H, W], `multiples of ${f}`);
    return tf.tidy(() => {
      const moments = this.quant_conv.forward(this.encoder.forward(x));
      const [mean, logVariance] = tf.split(moments, 2, 3) as [tf.Tensor4D, tf.Tensor4D];
      return { mean, logVariance: tf.clipByValue(logVariance, -30, 20) };
    });
  }

  /**
   * Images of latents, unscaled.
   * @param z `[N, h, w, latentChannels]`
   * @returns `[N, f·h, f·w, C]`, about [-1, 1], not clipped
   */
  decode(z: Float<'N H W C'>): tf.Tensor4D {
    axes('AutoencoderKL.decode: z', z, 'N H W C', { C: this.config.latentChannels });
    return tf.tidy(() => this.decoder.forward(this.post_quant_conv.forward(z)));
  }

  /** A draw from the posterior times the scaling factor, or its mean without an `rng`: what the transformers are trained on. */
  toLatents(x: Float<'N H W C'>, { rng }: { rng?: Rng } = {}): tf.Tensor4D {
    return tf.tidy(() => {
      const { mean, logVariance } = this.encode(x);
      const z = rng === undefined ? mean : samplePosterior(mean, logVariance, randomNormal<tf.Rank.R4>(rng, mean.shape));
      return tf.mul(z, this.config.scalingFactor);
    });
  }

  /** Images of scaled latents, clipped to [-1, 1]. */
  fromLatents(z: Float<'N H W C'>): tf.Tensor4D {
    return tf.tidy(() => tf.clipByValue(this.decode(tf.div(z, this.config.scalingFactor)), -1, 1));
  }
}

/** mean + exp(logVariance / 2) · noise; all `[N, h, w, c]`. */
export function samplePosterior(mean: tf.Tensor4D, logVariance: tf.Tensor4D, noise: tf.Tensor4D): tf.Tensor4D {
  return tf.tidy(() => tf.add(mean, tf.mul(tf.exp(tf.mul(logVariance, 0.5)), noise)));
}

/** KL divergence of the posterior from N(0, I), summed over each image, in nats. @returns `[N]` */
export function posteriorKL(mean: tf.Tensor4D, logVariance: tf.Tensor4D): tf.Tensor1D {
  return tf.tidy(() => {
    const terms = tf.sub(tf.sub(tf.add(tf.square(mean), tf.exp(logVariance)), 1), logVariance);
    return tf.mul(tf.sum(terms, [1, 2, 3]), 0.5) as tf.Tensor1D;
  });
}

class Encoder extends Module {
  readonly conv_in: Conv2d;
  readonly down: Level[];
  readonly mid: Middle;
  readonly norm_out: GroupNorm;
  readonly conv_out: Conv2d;

  constructor({ inChannels, channels, channelMultipliers, numResBlocks, latentChannels, groups, encoderAttentionLevels = [] }: AutoencoderConfig, init: Init) {
    super();
    this.conv_in = new Conv2d(inChannels, channels, 3, { init, padding: 1 });
    let width = channels;
    this.down = channelMultipliers.map((multiplier, level) => {
      const last = level === channelMultipliers.length - 1;
      const from = width;
      width = channels * multiplier;
      return new Level(from, width, numResBlocks, encoderAttentionLevels.includes(level), last ? 'none' : 'downsample', groups, init);
    });
    this.mid = new Middle(width, groups, init);
    this.norm_out = new GroupNorm(width, { init, groups });
    this.conv_out = new Conv2d(width, 2 * latentChannels, 3, { init, padding: 1 });
  }

  forward(x: tf.Tensor4D): tf.Tensor4D {
    let h = this.conv_in.forward(x);
    for (const level of this.down) h = level.forward(h);
    return this.conv_out.forward(silu(this.norm_out.forward(this.mid.forward(h))));
  }
}

class Decoder extends Module {
  readonly conv_in: Conv2d;
  readonly mid: Middle;
  /** Indexed by level, the finest first, as upstream; run from the last to the first. */
  readonly up: Level[];
  readonly norm_out: GroupNorm;
  readonly conv_out: Conv2d;

  constructor({ inChannels, channels, channelMultipliers, numResBlocks, latentChannels, groups, decoderAttentionLevels = [] }: AutoencoderConfig, init: Init) {
    super();
    let width = channels * channelMultipliers.at(-1)!;
    this.conv_in = new Conv2d(latentChannels, width, 3, { init, padding: 1 });
    this.mid = new Middle(width, groups, init);
    const up: Level[] = [];
    for (let level = channelMultipliers.length - 1; level >= 0; level--) {
      const from = width;
      width = channels * channelMultipliers[level]!;
      up.unshift(new Level(from, width, numResBlocks + 1, decoderAttentionLevels.includes(level), level === 0 ? 'none' : 'upsample', groups, init));
    }
    this.up = up;
    this.norm_out = new GroupNorm(width, { init, groups });
    this.conv_out = new Conv2d(width, inChannels, 3, { init, padding: 1 });
  }

  forward(z: tf.Tensor4D): tf.Tensor4D {
    let h = this.mid.forward(this.conv_in.forward(z));
    for (const level of this.up.toReversed()) h = level.forward(h);
    return this.conv_out.forward(silu(this.norm_out.forward(h)));
  }
}

/** Residual blocks at one resolution, with attention after each where asked, then a change of resolution. */
class Level extends Module {
  readonly block: ResBlock[];
  readonly attn: SpatialAttention[];
  readonly downsample?: Resample;
  readonly upsample?: Resample;

  constructor(from: number, to: number, count: number, withAttention: boolean, change: 'none' | 'downsample' | 'upsample', groups: number, init: Init) {
    super();
    this.block = Array.from({ length: count }, (_, i) => new ResBlock(i === 0 ? from : to, to, groups, init));
    this.attn = withAttention ? Array.from({ length: count }, () => new SpatialAttention(to, groups, init)) : [];
    if (change === 'downsample') this.downsample = new Resample(to, 'down', init);
    if (change === 'upsample') this.upsample = new Resample(to, 'up', init);
  }

  forward(x: tf.Tensor4D): tf.Tensor4D {
    return tf.tidy(() => {
      let h = x;
      for (const [i, block] of this.block.entries()) {
        h = block.forward(h);
        h = this.attn[i]?.forward(h) ?? h;
      }
      return (this.downsample ?? this.upsample)?.forward(h) ?? h;
    });
  }
}

class Middle extends Module {
  readonly block_1: ResBlock;
  readonly attn_1: SpatialAttention;
  readonly block_2: ResBlock;

  constructor(width: number, groups: number, init: Init) {
    super();
    this.block_1 = new ResBlock(width, width, groups, init);
    this.attn_1 = new SpatialAttention(width, groups, init);
    this.block_2 = new ResBlock(width, width, groups, init);
  }

  forward(x: tf.Tensor4D): tf.Tensor4D {
    return this.block_2.forward(this.attn_1.forward(this.block_1.forward(x)));
  }
}

class ResBlock extends Module {
  readonly norm1: GroupNorm;
  readonly conv1: Conv2d;
  readonly norm2: GroupNorm;
  readonly conv2: Conv2d;
  readonly nin_shortcut?: Conv2d;

  constructor(from: number, to: number, groups: number, init: Init) {
    super();
    this.norm1 = new GroupNorm(from, { init, groups });
    this.conv1 = new Conv2d(from, to, 3, { init, padding: 1 });
    this.norm2 = new GroupNorm(to, { init, groups });
    this.conv2 = new Conv2d(to, to, 3, { init, padding: 1 });
    if (from !== to) this.nin_shortcut = new Conv2d(from, to, 1, { init });
  }

  forward(x: tf.Tensor4D): tf.Tensor4D {
    return tf.tidy(() => {
      const h = this.conv1.forward(silu(this.norm1.forward(x)));
      return tf.add(this.nin_shortcut?.forward(x) ?? x, this.conv2.forward(silu(this.norm2.forward(h))));
    });
  }
}

/** Self-attention over pixels, one head as wide as the features. */
class SpatialAttention extends Module {
  readonly norm: GroupNorm;
  readonly q: Conv2d;
  readonly k: Conv2d;
  readonly v: Conv2d;
  readonly proj_out: Conv2d;

  constructor(width: number, groups: number, init: Init) {
    super();
    this.norm = new GroupNorm(width, { init, groups });
    this.q = new Conv2d(width, width, 1, { init });
    this.k = new Conv2d(width, width, 1, { init });
    this.v = new Conv2d(width, width, 1, { init });
    this.proj_out = new Conv2d(width, width, 1, { init });
  }

  forward(x: tf.Tensor4D): tf.Tensor4D {
    return tf.tidy(() => {
      const [n, h, w, c] = x.shape;
      const normed = this.norm.forward(x);
      const tokens = (conv: Conv2d) => tf.reshape(conv.forward(normed), [n, 1, h * w, c]) as tf.Tensor4D;
      const mixed = attention(tokens(this.q), tokens(this.k), tokens(this.v));
      return tf.add(x, this.proj_out.forward(tf.reshape(mixed, [n, h, w, c])));
    });
  }
}

/** Halves by a strided convolution after padding right and bottom, or doubles by repetition and a convolution. */
class Resample extends Module {
  readonly conv: Conv2d;
  readonly #direction: 'down' | 'up';

  constructor(width: number, direction: 'down' | 'up', init: Init) {
    super();
    this.#direction = direction;
    this.conv = new Conv2d(width, width, 3, direction === 'down' ? { init, stride: 2, padding: [[0, 1], [0, 1]] } : { init, padding: 1 });
  }

  forward(x: tf.Tensor4D): tf.Tensor4D {
    return this.conv.forward(this.#direction === 'down' ? x : repeatPixels(x));
  }
}

/** @throws ArgumentError where a configuration does not fit together */
export function checkAutoencoderConfig(config: AutoencoderConfig): void {
  for (const name of ['inChannels', 'channels', 'numResBlocks', 'latentChannels', 'groups'] as const) {
    if (!Number.isInteger(config[name]) || config[name] < 1) throw new ArgumentError(`AutoencoderConfig.${name}`, config[name], 'a positive integer');
  }
  const { channels, channelMultipliers, groups, scalingFactor } = config;
  if (!Array.isArray(channelMultipliers) || channelMultipliers.length === 0 || !channelMultipliers.every((m) => m > 0)) throw new ArgumentError('AutoencoderConfig.channelMultipliers', channelMultipliers, 'one number above 0 for each level');
  if (channelMultipliers.some((m) => (channels * m) % groups !== 0)) throw new ArgumentError('AutoencoderConfig.groups', groups, `a divisor of every width: ${channelMultipliers.map((m) => channels * m).join(', ')}`);
  if (!(scalingFactor > 0 && scalingFactor < Infinity)) throw new ArgumentError('AutoencoderConfig.scalingFactor', scalingFactor, 'a number above 0');
  for (const name of ['encoderAttentionLevels', 'decoderAttentionLevels'] as const) {
    if (config[name] !== undefined && !Array.isArray(config[name])) throw new ArgumentError(`AutoencoderConfig.${name}`, config[name], 'a list of levels');
  }
}

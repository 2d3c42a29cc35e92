import { type Float, axes, modulatedNorm, silu } from '@tinyfusion/kernels';
import { type Init, LayerNorm, Linear, Module, xavierUniform, zeros } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { TimestepEmbedder } from '../dit.js';

/** The shape of a {@link DiffusionHead}. */
export interface DiffusionHeadConfig {
  /** Values of a token. */
  channels: number;
  /** Width of its layers. Upstream: `diffloss_w`. */
  width: number;
  /** Number of residual blocks. Upstream: `diffloss_d`. */
  depth: number;
  /** Width of the condition. */
  conditionWidth: number;
  /** Values put out for a token. Default: twice its channels, for a learned variance. */
  outChannels?: number;
}

/** A token's noisy value and time in, its prediction out; the condition is closed over. */
export type HeadDenoiser = (x: tf.Tensor2D, t: tf.Tensor1D) => tf.Tensor2D;

/**
 * The small network that denoises one token given what the transformer says of it (Li et al. 2024, section 3.2): an MLP
 * with adaLN. Upstream: `SimpleMLPAdaLN`.
 */
export class DiffusionHead extends Module {
  readonly time_embed: TimestepEmbedder;
  readonly cond_embed: Linear;
  readonly input_proj: Linear;
  readonly res_blocks: readonly HeadBlock[];
  readonly final_layer: HeadFinalLayer;

  constructor({ channels, width, depth, conditionWidth, outChannels = 2 * channels }: DiffusionHeadConfig, init: Init) {
    super();
    this.time_embed = new TimestepEmbedder(width, init);
    this.cond_embed = new Linear(conditionWidth, width, { init, weightInit: xavierUniform });
    this.input_proj = new Linear(channels, width, { init, weightInit: xavierUniform });
    this.res_blocks = Array.from({ length: depth }, () => new HeadBlock(width, init));
    this.final_layer = new HeadFinalLayer(width, outChannels, init);
  }

  /**
   * @param x `[R, C]` noisy tokens
   * @param t `[R]` timesteps in [0, 1000)
   * @param c `[R, Z]` conditions
   * @returns `[R, 2 · C]`
   */
  forward(x: Float<'R C'>, t: tf.Tensor1D, c: Float<'R Z'>): Float<'R P'> {
    const { R } = axes('DiffusionHead.forward: x', x, 'R C', { C: this.input_proj.inFeatures });
    axes('DiffusionHead.forward: t', t, 'R', { R });
    axes('DiffusionHead.forward: c', c, 'R Z', { R, Z: this.cond_embed.inFeatures });
    return tf.tidy(() => this.denoise(x, tf.add(this.time_embed.forward(t), this.cond_embed.forward(c)) as tf.Tensor2D));
  }

  /**
   * A denoiser of tokens that are all at the same time, as in sampling: the condition's projection is computed once, and
   * the time is embedded once a step.
   *
   * @param c `[R, Z]` conditions, borrowed
   * @returns the denoiser, and a function that frees what it holds
   */
  conditioned(c: Float<'R Z'>): { denoiser: HeadDenoiser; dispose: () => void } {
    const projected = tf.tidy(() => this.cond_embed.forward(c));
    const denoiser: HeadDenoiser = (x, t) => tf.tidy(() => this.denoise(x, tf.add(projected, this.time_embed.forward(tf.slice(t, 0, 1))) as tf.Tensor2D));
    return { denoiser, dispose: () => projected.dispose() };
  }

  private denoise(x: tf.Tensor2D, y: tf.Tensor2D): tf.Tensor2D {
    let h = this.input_proj.forward(x);
    for (const block of this.res_blocks) h = block.forward(h, y);
    return this.final_layer.forward(h, y);
  }
}

/** x + gate · MLP(modulate(norm(x))). Upstream: `ResBlock`. */
export class HeadBlock extends Module {
  readonly in_ln: LayerNorm;
  readonly mlp: readonly [Linear, typeof silu, Linear];
  readonly adaLN_modulation: readonly [typeof silu, Linear];

  constructor(width: number, init: Init) {
    super();
    this.in_ln = new LayerNorm(width, { init, epsilon: 1e-6 });
    this.mlp = [new Linear(width, width, { init, weightInit: xavierUniform }), silu, new Linear(width, width, { init, weightInit: xavierUniform })];
    this.adaLN_modulation = [silu, new Linear(width, 3 * width, { init, weightInit: zeros })];
  }

  /** @param x `[R, W]` @param y `[R, W]` @returns `[R, W]` */
  forward(x: tf.Tensor2D, y: tf.Tensor2D): tf.Tensor2D {
    const [activation, projection] = this.adaLN_modulation;
    const [shift, scale, gate] = tf.split(projection.forward(activation(y)), 3, 1) as [tf.Tensor2D, tf.Tensor2D, tf.Tensor2D];
    const [first, middle, second] = this.mlp;
    const h = tf.add(tf.mul(this.in_ln.forward(x), tf.add(scale, 1)), shift) as tf.Tensor2D;
    const branch = second.forward(middle(first.forward(h)));
    return tf.add(x, tf.mul(gate, branch)) as tf.Tensor2D;
  }
}

/** adaLN, then a projection. Upstream: diffloss's `FinalLayer`. */
export class HeadFinalLayer extends Module {
  readonly linear: Linear;
  readonly adaLN_modulation: readonly [typeof silu, Linear];

  constructor(width: number, outChannels: number, init: Init) {
    super();
    this.linear = new Linear(width, outChannels, { init, weightInit: zeros });
    this.adaLN_modulation = [silu, new Linear(width, 2 * width, { init, weightInit: zeros })];
  }

  /** @param x `[R, W]` @param y `[R, W]` @returns `[R, outChannels]` */
  forward(x: tf.Tensor2D, y: tf.Tensor2D): tf.Tensor2D {
    const [activation, projection] = this.adaLN_modulation;
    const [shift, scale] = tf.split(projection.forward(activation(y)), 2, 1) as [tf.Tensor2D, tf.Tensor2D];
    return this.linear.forward(tf.squeeze(modulatedNorm(tf.expandDims(x, 1) as tf.Tensor3D, shift, scale), [1]) as tf.Tensor2D);
  }
}

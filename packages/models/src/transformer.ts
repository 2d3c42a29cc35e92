import type { Rng } from '@tinyfusion/core';
import { gelu, geluExact, selfAttention } from '@tinyfusion/kernels';
import { type BranchHook, type Init, LayerNorm, Linear, Module, plainBranch, repeatable, xavierUniform } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';

/** Multi-head self-attention with a packed projection; upstream: timm's `Attention` with `qkv_bias=True`. */
export class Attention extends Module {
  readonly qkv: Linear;
  readonly proj: Linear;

  constructor(
    features: number,
    readonly numHeads: number,
    init: Init,
  ) {
    super();
    this.qkv = new Linear(features, 3 * features, { init, weightInit: xavierUniform });
    this.proj = new Linear(features, features, { init, weightInit: xavierUniform });
  }

  /**
   * @param x `[N, T, D]`
   * @param options `weightDropout`: rate and stream of the attention weights' dropout. Default: none
   */
  forward(x: tf.Tensor3D, { weightDropout }: { weightDropout?: { rate: number; rng: Rng } | undefined } = {}): tf.Tensor3D {
    const qkv = this.qkv.forward(x);
    if (weightDropout === undefined || weightDropout.rate === 0) return this.proj.forward(selfAttention(qkv, { numHeads: this.numHeads }));
    const [n, t, d] = x.shape;
    const [q, k, v] = tf.split(qkv, 3, 2).map((part) => tf.transpose(tf.reshape(part, [n, t, this.numHeads, d / this.numHeads]), [0, 2, 1, 3])) as [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D];
    const scores = tf.mul(tf.matMul(q, k, false, true), Math.sqrt(this.numHeads / d));
    const weights = dropout(tf.softmax(scores), weightDropout.rate, weightDropout.rng);
    return this.proj.forward(tf.reshape(tf.transpose(tf.matMul(weights, v), [0, 2, 1, 3]), [n, t, d]) as tf.Tensor3D);
  }
}

/** Options of {@link Mlp}. */
export interface MlpOptions {
  init: Init;
  /** `'tanh'` as in DiT, `'exact'` as in timm's ViT. Default `'tanh'`. */
  gelu?: 'tanh' | 'exact';
}

/** Two linear layers with a GELU between them; upstream: timm's `Mlp`. */
export class Mlp extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;
  readonly #activation: <T extends tf.Tensor>(x: T) => T;

  constructor(features: number, hiddenFeatures: number, { init, gelu: form = 'tanh' }: MlpOptions) {
    super();
    this.fc1 = new Linear(features, hiddenFeatures, { init, weightInit: xavierUniform });
    this.fc2 = new Linear(hiddenFeatures, features, { init, weightInit: xavierUniform });
    this.#activation = form === 'tanh' ? gelu : geluExact;
  }

  /** @param x `[N, T, D]` @param drop applied to the hidden values. Default: nothing */
  forward(x: tf.Tensor3D, drop: (h: tf.Tensor3D) => tf.Tensor3D = (h) => h): tf.Tensor3D {
    return this.fc2.forward(drop(this.#activation(this.fc1.forward(x))));
  }
}

/** Options of {@link ViTBlock}. */
export interface ViTBlockOptions {
  mlpRatio: number;
  epsilon: number;
  /** Dropout in training. */
  rates: { attention: number; projection: number };
  init: Init;
}

/** Pre-norm transformer block without a condition; upstream: timm's `Block` with `qkv_bias=True` and exact GELU. */
export class ViTBlock extends Module {
  readonly norm1: LayerNorm;
  readonly attn: Attention;
  readonly norm2: LayerNorm;
  readonly mlp: Mlp;
  readonly #rates: { attention: number; projection: number };

  constructor(features: number, numHeads: number, { mlpRatio, epsilon, rates, init }: ViTBlockOptions) {
    super();
    this.norm1 = new LayerNorm(features, { init, epsilon });
    this.attn = new Attention(features, numHeads, init);
    this.norm2 = new LayerNorm(features, { init, epsilon });
    this.mlp = new Mlp(features, Math.floor(features * mlpRatio), { init, gelu: 'exact' });
    this.#rates = rates;
  }

  /** @param x `[N, T, D]` @param options `dropout`: draws dropout, as in training. Default: none @returns `[N, T, D]` */
  forward(x: tf.Tensor3D, { around = plainBranch, dropout: rng }: { around?: BranchHook; dropout?: Rng | undefined } = {}): tf.Tensor3D {
    const { attention: attentionRate, projection } = this.#rates;
    const drop = (h: tf.Tensor3D): tf.Tensor3D => (rng === undefined || projection === 0 ? h : dropout(h, projection, rng));
    const weightDropout = rng === undefined ? undefined : { rate: attentionRate, rng };
    return tf.tidy(() => {
      const h = around('attention', x, (z) => tf.add(z, drop(this.attn.forward(this.norm1.forward(z), { weightDropout }))));
      return around('mlp', h, (z) => tf.add(z, drop(this.mlp.forward(this.norm2.forward(z), drop))));
    });
  }
}

/** Zeroes values with probability `rate` and divides the others by 1 − rate. */
function dropout<T extends tf.Tensor>(x: T, rate: number, rng: Rng): T {
  return tf.mul(x, tf.tensor(repeatable(rng).uniform(x.size).map((u) => (u < rate ? 0 : 1 / (1 - rate))), x.shape)) as T;
}

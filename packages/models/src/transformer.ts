import { gelu, selfAttention } from '@tinyfusion/kernels';
import { type Init, Linear, Module, xavierUniform } from '@tinyfusion/nn';
import type * as tf from '@tensorflow/tfjs-core';

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

  /** @param x `[N, T, D]` */
  forward(x: tf.Tensor3D): tf.Tensor3D {
    return this.proj.forward(selfAttention(this.qkv.forward(x), { numHeads: this.numHeads }));
  }
}

/** Two linear layers with a tanh-GELU between them; upstream: timm's `Mlp`. */
export class Mlp extends Module {
  readonly fc1: Linear;
  readonly fc2: Linear;

  constructor(features: number, hiddenFeatures: number, init: Init) {
    super();
    this.fc1 = new Linear(features, hiddenFeatures, { init, weightInit: xavierUniform });
    this.fc2 = new Linear(hiddenFeatures, features, { init, weightInit: xavierUniform });
  }

  /** @param x `[N, T, D]` */
  forward(x: tf.Tensor3D): tf.Tensor3D {
    return this.fc2.forward(gelu(this.fc1.forward(x)));
  }
}

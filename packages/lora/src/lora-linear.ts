import { ArgumentError } from '@tinyfusion/core';
import { type Init, Linear, parameter, torchDefault, zeros } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';

/** A linear layer with a low-rank correction: y = x(W + s·BA)ᵀ + b, s = alpha/rank (Hu et al. 2022). */
export class LoraLinear extends Linear {
  /** `[rank, in]` */
  readonly lora_A: tf.Variable;
  /** `[out, rank]` */
  readonly lora_B: tf.Variable;
  merged = false;

  /** Takes over the base layer's variables; the base layer must not be used or disposed of meanwhile. */
  constructor(
    readonly base: Linear,
    readonly rank: number,
    readonly scale: number,
    init: Init,
  ) {
    super(base.inFeatures, base.outFeatures, { init: 'zeros', bias: base.bias !== undefined });
    // the fields that the base class made give way to the base layer's
    this.weight.dispose();
    this.bias?.dispose();
    Object.assign(this, { weight: base.weight, ...Object.fromEntries(Object.entries({ bias: base.bias, weight_scale: base.weight_scale, packing: base.packing }).filter(([, value]) => value !== undefined)) });
    Object.defineProperty(this, 'base', { enumerable: false });
    this.lora_A = parameter([rank, base.inFeatures], torchDefault, init);
    this.lora_B = parameter([base.outFeatures, rank], zeros, init);
  }

  override forward<T extends tf.Tensor>(x: T): T {
    if (this.merged) return super.forward(x);
    return tf.tidy(() => {
      const flat = tf.reshape(x, [-1, this.inFeatures]) as tf.Tensor2D;
      const low = tf.matMul(flat, this.lora_A as tf.Tensor as tf.Tensor2D, false, true);
      const correction = tf.mul(tf.matMul(low, this.lora_B as tf.Tensor as tf.Tensor2D, false, true), this.scale);
      return tf.add(super.forward(x), tf.reshape(correction, [...x.shape.slice(0, -1), this.outFeatures])) as T;
    });
  }

  /** Adds s·BA to the weight; forward passes cost nothing extra from then on. */
  merge(): void {
    if (!this.merged) this.#addToWeight(1);
    this.merged = true;
  }

  /** Takes s·BA out of the weight again, which is exact but for rounding. */
  unmerge(): void {
    if (this.merged) this.#addToWeight(-1);
    this.merged = false;
  }

  #addToWeight(sign: number): void {
    if (this.packing !== undefined) throw new ArgumentError('merge: weight', this.packing, 'float32: packed weights would round the correction away; load the model with dtype F32');
    tf.tidy(() => {
      const correction = tf.matMul(this.lora_B as tf.Tensor as tf.Tensor2D, this.lora_A as tf.Tensor as tf.Tensor2D);
      this.weight.assign(tf.add(this.weight, tf.mul(correction, sign * this.scale)));
    });
  }
}

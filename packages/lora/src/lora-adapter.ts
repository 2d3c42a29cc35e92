import type { Rng } from '@tinyfusion/core';
import { linear, unpackWeight } from '@tinyfusion/kernels';
import { type Init, type Linear, Module, parameter, torchDefault, zeros } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { magnitudeFactor, rowNorms } from './dora.js';
import { dropout } from './dropout.js';
import type { LayerSettings } from './lora-options.js';

/** The low-rank correction of one layer: ΔW = s·BA, or with DoRA ΔW = m/‖W + s·BA‖ · (W + s·BA) − W. Fields have PEFT's names. */
export class LoraAdapter extends Module {
  /** `[rank, in]` */
  readonly lora_A: tf.Variable;
  /** `[out, rank]` */
  readonly lora_B: tf.Variable;
  /** DoRA's m, `[out]`; at first the norms of the weight's rows. */
  readonly lora_magnitude_vector?: tf.Variable;
  readonly rank: number;
  /** s */
  readonly scale: number;
  /** Probability with which an input is zeroed in training. */
  readonly dropout: number;

  constructor(base: Linear, { rank, scale, dora, dropout }: LayerSettings, init: Init) {
    super();
    this.rank = rank;
    this.scale = scale;
    this.dropout = dropout;
    this.lora_A = parameter([rank, base.inFeatures], torchDefault, init);
    this.lora_B = parameter([base.outFeatures, rank], zeros, init);
    if (dora) this.lora_magnitude_vector = tf.tidy(() => tf.variable(this.#norms(weightOf(base))));
  }

  /**
   * w·x ΔWᵀ.
   * @param x `[..., in]`
   * @param product computes x Wᵀ without bias; called for DoRA alone
   * @param rng draws dropout; none while the model is not in training
   * @returns `[..., out]`
   */
  correction(base: Linear, x: tf.Tensor, w: number, product: (x: tf.Tensor) => tf.Tensor, rng: Rng | undefined): tf.Tensor {
    return tf.tidy(() => {
      const input = rng === undefined || this.dropout === 0 ? x : dropout(x, this.dropout, rng);
      const low = tf.mul(linear(input, this.lora_A as tf.Tensor as tf.Tensor2D), this.scale * w);
      const added = linear(low, this.lora_B as tf.Tensor as tf.Tensor2D);
      if (this.lora_magnitude_vector === undefined) return added;
      const factor = this.#factor(base);
      return tf.add(tf.mul(tf.mul(tf.sub(factor, 1), w), product(input)), tf.mul(factor, added));
    });
  }

  /** ΔW, `[out, in]`. */
  delta(base: Linear): tf.Tensor2D {
    return tf.tidy(() => {
      const added = tf.mul(tf.matMul(this.lora_B as tf.Tensor as tf.Tensor2D, this.lora_A as tf.Tensor as tf.Tensor2D), this.scale);
      if (this.lora_magnitude_vector === undefined) return added as tf.Tensor2D;
      const factor = tf.expandDims(this.#factor(base), 1);
      return tf.add(tf.mul(tf.sub(factor, 1), weightOf(base)), tf.mul(factor, added)) as tf.Tensor2D;
    });
  }

  #factor(base: Linear): tf.Tensor1D {
    return magnitudeFactor(this.lora_magnitude_vector as tf.Tensor as tf.Tensor1D, () => tf.tidy(() => this.#norms(weightOf(base))));
  }

  #norms(weight: tf.Tensor2D): tf.Tensor1D {
    return rowNorms(weight, this.lora_A as tf.Tensor as tf.Tensor2D, this.lora_B as tf.Tensor as tf.Tensor2D, this.scale);
  }
}

/** A layer's weight in float32: its own tensor, or where it is packed a fresh one for the present tidy. */
function weightOf(layer: Linear): tf.Tensor2D {
  return layer.packed === undefined ? (layer.weight as tf.Tensor as tf.Tensor2D) : unpackWeight(layer.packed);
}

import { type PackedDtype, type PackedWeight, conv2d, embedding, groupNorm, layerNorm, linear, packedLinear, scaleShape, wordsPerRow } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { type Init, type Initialiser, isBlank, normal, ones, parameter, torchDefault, zeros } from './init.js';
import { Module } from './module.js';

/** Options of {@link Linear}. */
export interface LinearOptions {
  init: Init;
  /** Whether there is a bias. Default `true`. */
  bias?: boolean;
  /** Default: `torch.nn.Linear`'s, U(±1/√in). */
  weightInit?: Initialiser;
  /** Default: zeros. */
  biasInit?: Initialiser;
}

/** y = x Wᵀ + b over the last axis; `weight` is `[out, in]`. */
export class Linear extends Module {
  /** Where the layer is packed: its words, int32, and not trainable. */
  readonly weight: tf.Variable;
  /** Where the layer is packed as integers: their scales. */
  readonly weight_scale?: tf.Variable;
  readonly bias?: tf.Variable;
  /** How the weight is held; absent for float32. */
  readonly packing?: PackedDtype;

  constructor(
    readonly inFeatures: number,
    readonly outFeatures: number,
    { init, bias = true, weightInit = torchDefault, biasInit = zeros }: LinearOptions,
  ) {
    super();
    if (isBlank(init) && init !== 'zeros') {
      this.packing = init.packed;
      this.weight = tf.tidy(() => tf.variable(tf.zeros([outFeatures, wordsPerRow(inFeatures, init.packed)], 'int32'), false));
      const scale = scaleShape(outFeatures, inFeatures, init.packed);
      if (scale !== undefined) this.weight_scale = parameter(scale, ones, init, { trainable: false });
    } else this.weight = parameter([outFeatures, inFeatures], weightInit, init);
    if (bias) this.bias = parameter([outFeatures], biasInit, init);
  }

  /** Whether the output is x Wᵀ + b of these weights and nothing else; a subclass says so itself. */
  get plain(): boolean {
    return this.constructor === Linear;
  }

  protected override get packedCount(): number {
    return this.packing === undefined ? 0 : this.inFeatures * this.outFeatures;
  }

  /** The packed weight, where the layer has one; its tensors stay the layer's. */
  get packed(): PackedWeight | undefined {
    if (this.packing === undefined) return undefined;
    return { dtype: this.packing, inFeatures: this.inFeatures, words: this.weight as tf.Tensor as tf.Tensor2D, scale: this.weight_scale };
  }

  /** @param x `[..., in]` @returns `[..., out]` */
  forward<T extends tf.Tensor>(x: T): T {
    const bias = this.bias as tf.Tensor as tf.Tensor1D | undefined;
    const { packed } = this;
    return (packed === undefined ? linear(x, this.weight as tf.Tensor as tf.Tensor2D, bias) : packedLinear(x, packed, bias)) as T;
  }
}

/** Options of {@link Conv2d}. */
export interface Conv2dOptions extends LinearOptions {
  /** Default 1. */
  stride?: number;
  /** Zeros on every side, or per side. Default 0. */
  padding?: number | [[number, number], [number, number]];
}

/** Convolution of NHWC images; `weight` is `[out, in, kh, kw]`. */
export class Conv2d extends Module {
  readonly weight: tf.Variable;
  readonly bias?: tf.Variable;
  readonly #stride: number;
  readonly #padding: number | [[number, number], [number, number]];

  constructor(inChannels: number, outChannels: number, kernelSize: number, { init, bias = true, weightInit = torchDefault, biasInit = zeros, stride = 1, padding = 0 }: Conv2dOptions) {
    super();
    this.weight = parameter([outChannels, inChannels, kernelSize, kernelSize], weightInit, init);
    if (bias) this.bias = parameter([outChannels], biasInit, init);
    this.#stride = stride;
    this.#padding = padding;
  }

  /** @param x `[N, H, W, in]` @returns `[N, H', W', out]` */
  forward(x: tf.Tensor4D): tf.Tensor4D {
    return conv2d(x, this.weight as tf.Tensor as tf.Tensor4D, this.bias as tf.Tensor as tf.Tensor1D | undefined, { stride: this.#stride, padding: this.#padding });
  }
}

/** Normalises the last axis to mean 0 and variance 1, then scales and shifts. */
export class LayerNorm extends Module {
  readonly weight: tf.Variable;
  readonly bias: tf.Variable;
  readonly #epsilon: number;

  /** @param options `epsilon` defaults to 1e-5, as in PyTorch */
  constructor(features: number, { init, epsilon = 1e-5 }: { init: Init; epsilon?: number }) {
    super();
    this.weight = parameter([features], ones, init);
    this.bias = parameter([features], zeros, init);
    this.#epsilon = epsilon;
  }

  /** @param x `[..., D]` */
  forward<T extends tf.Tensor>(x: T): T {
    return layerNorm(x, this.weight as tf.Tensor as tf.Tensor1D, this.bias as tf.Tensor as tf.Tensor1D, { epsilon: this.#epsilon }) as T;
  }
}

/** Normalises groups of channels over space (Wu & He 2018), then scales and shifts. */
export class GroupNorm extends Module {
  readonly weight: tf.Variable;
  readonly bias: tf.Variable;
  readonly #groups: number;
  readonly #epsilon: number;

  /** @param options `groups` defaults to 32, `epsilon` to 1e-6, as in the autoencoders of latent diffusion */
  constructor(channels: number, { init, groups = 32, epsilon = 1e-6 }: { init: Init; groups?: number; epsilon?: number }) {
    super();
    this.weight = parameter([channels], ones, init);
    this.bias = parameter([channels], zeros, init);
    this.#groups = groups;
    this.#epsilon = epsilon;
  }

  /** @param x `[N, H, W, C]` */
  forward(x: tf.Tensor4D): tf.Tensor4D {
    return groupNorm(x, this.weight as tf.Tensor as tf.Tensor1D, this.bias as tf.Tensor as tf.Tensor1D, { groups: this.#groups, epsilon: this.#epsilon });
  }
}

/** A table of vectors; `weight` is `[count, D]`. */
export class Embedding extends Module {
  readonly weight: tf.Variable;

  constructor(count: number, features: number, { init, weightInit = normal(1) }: { init: Init; weightInit?: Initialiser }) {
    super();
    this.weight = parameter([count, features], weightInit, init);
  }

  /** @param indices int32 `[N]` @returns `[N, D]` */
  forward(indices: tf.Tensor1D): tf.Tensor2D {
    return embedding(this.weight as tf.Tensor as tf.Tensor2D, indices);
  }
}

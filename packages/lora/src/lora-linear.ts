import { ArgumentError, type Rng } from '@tinyfusion/core';
import { linear, packedLinear } from '@tinyfusion/kernels';
import { type Init, Linear, Module } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { LoraAdapter } from './lora-adapter.js';
import type { LayerSettings } from './lora-options.js';

/** Adapters as fields, so that the tree of parameters has them by name. */
class NamedAdapters extends Module {
  [name: string]: unknown;
}

/** A linear layer with low-rank corrections: y = x(W + Σ wᵢ ΔWᵢ)ᵀ + b over its active adapters (Hu et al. 2022). */
export class LoraLinear extends Linear {
  /** The layer as it was, whose variables this one took over; not in the tree of parameters a second time. */
  declare readonly base: Linear;
  /** Adapters by name. */
  readonly lora = new NamedAdapters();
  readonly #adapters = new Map<string, LoraAdapter>();
  #active: [adapter: LoraAdapter, weight: number][] = [];
  #merged = false;
  #revision = 0;
  #rng: Rng | undefined;

  /** @internal made by {@link LoraAdapters}. The base layer must not be disposed of meanwhile. */
  constructor(base: Linear) {
    super(base.inFeatures, base.outFeatures, { init: 'zeros', bias: base.bias !== undefined });
    // the fields that the base class made give way to the base layer's
    this.weight.dispose();
    this.bias?.dispose();
    for (const key of ['weight', 'bias', 'weight_scale', 'packing'] as const) if (base[key] !== undefined) Object.assign(this, { [key]: base[key] });
    Object.defineProperty(this, 'base', { value: base });
  }

  /** Whether `weight` is the sum of the base layer's and the active adapters'. */
  get merged(): boolean {
    return this.#merged;
  }

  /** Counts what was switched, merged and drawn otherwise. */
  override get revision(): number {
    return this.#revision;
  }

  override get plain(): boolean {
    return this.#merged || this.#active.length === 0;
  }

  /** Merged, the layer's parameters are those of a plain one. */
  override get unstorable(): string | undefined {
    return this.#merged ? undefined : 'a layer without adapters beside its weight: merge() of the adapters, or remove({ merged: true }), puts the active ones into the weights, remove() takes all off; toPeft saves one by itself';
  }

  /** Adapters of this layer by name. */
  get adapters(): ReadonlyMap<string, LoraAdapter> {
    return this.#adapters;
  }

  /** @internal */
  addAdapter(name: string, settings: LayerSettings, init: Init): void {
    const adapter = new LoraAdapter(this.base, settings, init);
    this.#adapters.set(name, adapter);
    this.lora[name] = adapter;
  }

  /** @internal The adapter must not be active. */
  deleteAdapter(name: string): void {
    this.#adapters.get(name)?.dispose();
    this.#adapters.delete(name);
    delete this.lora[name];
  }

  /** @internal Adapters that are not on this layer are passed over; the layer must not be merged. */
  activate(weights: ReadonlyMap<string, number>): void {
    this.#revision += 1;
    this.#active = [];
    for (const [name, adapter] of this.#adapters) {
      const weight = weights.get(name);
      for (const [, variable] of adapter.namedParameters()) variable.trainable = weight !== undefined;
      if (weight !== undefined) this.#active.push([adapter, weight]);
    }
  }

  /** @internal Dropout is drawn from `rng`, or left out. */
  drawFrom(rng: Rng | undefined): void {
    this.#revision += 1;
    this.#rng = rng;
  }

  override forward<T extends tf.Tensor>(x: T): T {
    if (this.#merged || this.#active.length === 0) return super.forward(x);
    return tf.tidy(() => {
      // with DoRA x Wᵀ is needed without the bias too, and computed once
      const bare = this.#active.some(([{ lora_magnitude_vector: m, dropout }]) => m !== undefined && (this.#rng === undefined || dropout === 0)) ? this.#product(x) : undefined;
      let y: tf.Tensor = bare === undefined ? super.forward(x) : this.bias === undefined ? bare : tf.add(bare, this.bias);
      for (const [adapter, weight] of this.#active) y = tf.add(y, adapter.correction(this, x, weight, (input) => (input === x && bare !== undefined ? bare : this.#product(input)), this.#rng));
      return y as T;
    });
  }

  /**
   * Puts W + Σ wᵢ ΔWᵢ in the place of the weight, in a variable of its own: forward passes cost nothing extra from then
   * on, the layer takes the space of its weight twice, and to whoever looks at its parameters it is a plain one.
   * @throws ArgumentError where the weight is packed
   */
  merge(): void {
    if (this.#merged) return;
    if (this.packing !== undefined) throw new ArgumentError('merge: weight', this.packing, 'float32: packed weights would round the correction away; load the model with dtype F32');
    if (this.#active.length > 0) {
      const merged = tf.tidy(() => tf.variable(this.#active.reduce<tf.Tensor>((sum, [adapter, weight]) => tf.add(sum, tf.mul(adapter.delta(this.base), weight)), this.base.weight), false));
      Object.assign(this, { weight: merged });
    }
    this.#setMerged(true);
  }

  /** Puts the base layer's own weight back, which nothing has touched, and frees the sum. */
  unmerge(): void {
    if (this.weight !== this.base.weight) this.weight.dispose();
    Object.assign(this, { weight: this.base.weight });
    this.#setMerged(false);
  }

  override dispose(): void {
    this.unmerge();
    super.dispose();
  }

  /** Adapters that are in the weight are not in the tree of parameters beside it. */
  #setMerged(merged: boolean): void {
    if (merged !== this.#merged) this.#revision += 1;
    this.#merged = merged;
    Object.defineProperty(this, 'lora', { enumerable: !merged });
  }

  /** x Wᵀ. */
  #product(x: tf.Tensor): tf.Tensor {
    const { packed } = this;
    return packed === undefined ? linear(x, this.weight as tf.Tensor as tf.Tensor2D) : packedLinear(x, packed);
  }
}

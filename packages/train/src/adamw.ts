import { ArgumentError } from '@tinyfusion/core';
import { adamWStep } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';
import { checkCount, checkShapes } from './checks.js';
import type { Ema } from './ema.js';

/** Options of {@link AdamW}; defaults are those of `torch.optim.AdamW` but for the weight decay, which DiT and TinyFusion set to 0. */
export interface AdamWOptions {
  /** In [0, 1). Default 0.9. */
  beta1?: number;
  /** In [0, 1). Default 0.999. */
  beta2?: number;
  /** From 0. Default 1e-8. */
  epsilon?: number;
  /** Decoupled weight decay, from 0. Default 0. */
  weightDecay?: number;
}

/** Options of {@link AdamW.step}. */
export interface AdamWStepOptions {
  /** Learning rate of this step. */
  lr: number;
  /** What gradients are multiplied by first, as clipping asks. Default 1. */
  gradientScale?: number;
  /** Averages that take in the new values in the same pass; `ema.update()` is to follow. Default: none. */
  ema?: Ema | undefined;
}

/**
 * AdamW (Loshchilov & Hutter 2019) over a list of variables. Moments are owned by the optimiser, and outlive every
 * enclosing `tidy`; the learning rate is an argument of each step, so that schedules are plain functions and groups of parameters are several optimisers.
 */
export class AdamW {
  readonly #parameters: readonly tf.Variable[];
  readonly #options: Required<AdamWOptions>;
  #m: tf.Tensor[];
  #v: tf.Tensor[];
  #step = 0;

  /** @param parameters borrowed @throws ArgumentError where an option is out of its range, which are those of torch */
  constructor(parameters: readonly tf.Variable[], { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0 }: AdamWOptions = {}) {
    for (const [name, beta] of Object.entries({ beta1, beta2 })) if (!(beta >= 0 && beta < 1)) throw new ArgumentError(`AdamWOptions.${name}`, beta, 'a number in [0, 1)');
    for (const [name, value] of Object.entries({ epsilon, weightDecay })) if (!(value >= 0 && value < Infinity)) throw new ArgumentError(`AdamWOptions.${name}`, value, 'a finite number from 0');
    this.#parameters = parameters;
    this.#options = { beta1, beta2, epsilon, weightDecay };
    this.#m = parameters.map((p) => tf.keep(tf.zeros(p.shape)));
    this.#v = parameters.map((p) => tf.keep(tf.zeros(p.shape)));
  }

  /** Steps taken so far. */
  get steps(): number {
    return this.#step;
  }

  /**
   * Updates every parameter. What gradients hold is not read back: `globalNorm` tells whether they are finite, and `clipFactor`
   * refuses a norm that is not.
   * @param gradients in the order of the parameters, borrowed
   * @throws ArgumentError where there is not one gradient for each parameter, and where `lr` or `gradientScale` is no finite
   * number from 0; ShapeError where a gradient's shape is not its parameter's. No parameter is changed then
   */
  step(gradients: readonly tf.Tensor[], { lr, gradientScale = 1, ema }: AdamWStepOptions): void {
    if (gradients.length !== this.#parameters.length) throw new ArgumentError('AdamW.step: gradients', gradients.length, `${this.#parameters.length} gradients, one for each parameter`);
    checkShapes('AdamW.step: gradient', gradients, this.#parameters);
    if (!(lr >= 0 && lr < Infinity)) throw new ArgumentError('AdamW.step: lr', lr, 'a finite number from 0');
    if (!(gradientScale >= 0 && gradientScale < Infinity)) throw new ArgumentError('AdamW.step: gradientScale', gradientScale, 'a finite number from 0; a step whose gradients are not finite is to be left out');
    this.#step += 1;
    for (const [i, parameter] of this.#parameters.entries()) {
      const averaged = ema?.averaging(parameter);
      const next = adamWStep({ parameter, gradient: gradients[i]!, m: this.#m[i]!, v: this.#v[i]!, average: averaged?.average }, { ...this.#options, lr, gradientScale, step: this.#step, averageDecay: averaged?.decay ?? 0 });
      tf.dispose([this.#m[i]!, this.#v[i]!]);
      if (next.average !== undefined) averaged!.next(next.average);
      this.#m[i] = tf.keep(next.m);
      this.#v[i] = tf.keep(next.v);
      parameter.assign(next.parameter);
      next.parameter.dispose();
    }
  }

  /** Both moments of every parameter, in order; owned by the optimiser. */
  moments(): { m: readonly tf.Tensor[]; v: readonly tf.Tensor[] } {
    return { m: this.#m, v: this.#v };
  }

  /**
   * Goes on from saved moments, which are copied.
   * @throws ArgumentError where there are not as many as parameters, or `step` is no count; ShapeError where one is of another shape
   */
  restore({ step, m, v }: { step: number; m: readonly tf.Tensor[]; v: readonly tf.Tensor[] }): void {
    const count = this.#parameters.length;
    if (m.length !== count || v.length !== count) throw new ArgumentError('AdamW.restore: moments', [m.length, v.length], `${count} of each`);
    checkShapes('AdamW.restore: first moment', m, this.#parameters);
    checkShapes('AdamW.restore: second moment', v, this.#parameters);
    checkCount('AdamW.restore: step', step);
    tf.dispose([...this.#m, ...this.#v]);
    this.#m = m.map((t) => tf.keep(tf.clone(t)));
    this.#v = v.map((t) => tf.keep(tf.clone(t)));
    this.#step = step;
  }

  /** Frees the moments. */
  dispose(): void {
    tf.dispose([...this.#m, ...this.#v]);
  }
}

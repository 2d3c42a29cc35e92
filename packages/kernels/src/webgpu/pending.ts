import { invariant } from '@tinyfusion/core';
import type * as tf from '@tensorflow/tfjs-core';
import type { Gpu } from './gpu.js';
import type { DataId } from './internals.js';

/**
 * Work that is recorded only when a result of it is needed, so that what follows can be put into the same dispatch: an
 * activation into the product before it, a sum of gradients into the last of them. Inputs are held until then. Whoever
 * reads a result, tfjs's own kernels included, makes it computed first; results that nobody reads never are.
 */
export abstract class Pending {
  /** Results that exist and are not computed. */
  readonly live = new Set<DataId>();
  readonly #held: DataId[] = [];

  constructor(readonly gpu: Gpu) {}

  /** Records what computes at least `id`, calling {@link fill} for each result that it writes. */
  protected abstract compute(id: DataId): void;

  /** The result that has to be computed where there is no time to wait for more; none where others stand for it. */
  get due(): DataId | undefined {
    return [...this.live].at(-1);
  }

  /** A result plus `other`, of one size, computed with it. `undefined` where it cannot be. */
  plus(_x: tf.TensorInfo, _other: tf.TensorInfo): tf.TensorInfo | undefined {
    return undefined;
  }

  /** Computes a result. */
  settle(id: DataId): void {
    this.compute(id);
    invariant(!this.live.has(id), 'a pending result is computed when it is asked for');
    this.#let();
  }

  /** A result that nobody wants any more. */
  drop(id: DataId): void {
    this.live.delete(id);
    this.#let();
  }

  /** Keeps an input until all is computed or dropped. */
  protected hold(...inputs: readonly (tf.TensorInfo | undefined)[]): void {
    for (const input of inputs) {
      if (input === undefined) continue;
      this.gpu.backend.incRef(input.dataId);
      this.#held.push(input.dataId);
    }
  }

  /** A result to be computed later. */
  protected result(shape: readonly number[]): tf.TensorInfo {
    return this.gpu.later(this, shape);
  }

  /** The buffer of a result, for writing; it counts as computed from here on. */
  protected fill(id: DataId): GPUBuffer {
    this.live.delete(id);
    return this.gpu.fill(id);
  }

  /** Called by subclasses that compute results of each other. */
  protected settled(): void {
    this.#let();
  }

  #let(): void {
    if (this.live.size === 0) for (const id of this.#held.splice(0)) this.gpu.release(id);
  }
}

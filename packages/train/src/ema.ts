import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { checkCount, checkShapes } from './checks.js';

/** Options of {@link Ema}. */
export interface EmaOptions {
  /** d in average ← d · average + (1 − d) · value. DiT and recovery: 0.9999; mask learning: 0.999. */
  decay: number;
  /**
   * Whether the decay grows with the steps, min(decay, (1 + n) / (10 + n)), so that short runs do not average their
   * start. Default `false`, as upstream.
   */
  warmUp?: boolean;
}

/** Exponential moving averages of variables; they outlive every enclosing `tidy`. */
export class Ema {
  readonly #variables: readonly tf.Variable[];
  readonly #decay: number;
  readonly #warmUp: boolean;
  #averages: tf.Tensor[];
  #updates = 0;
  /** Variables whose averages have had the next update already. */
  readonly #ahead = new Set<number>();

  /** Starts from copies of the variables' values. */
  constructor(variables: readonly tf.Variable[], { decay, warmUp = false }: EmaOptions) {
    if (!(decay >= 0 && decay < 1)) throw new ArgumentError('EmaOptions.decay', decay, 'a number in [0, 1)');
    this.#variables = variables;
    this.#decay = decay;
    this.#warmUp = warmUp;
    this.#averages = variables.map((v) => tf.keep(tf.clone(v as tf.Tensor)));
  }

  /** Updates made so far. */
  get updates(): number {
    return this.#updates;
  }

  /** The decay of the next update. */
  get #nextDecay(): number {
    const n = this.#updates + 1;
    return this.#warmUp ? Math.min(this.#decay, (1 + n) / (10 + n)) : this.#decay;
  }

  /**
   * Lets an optimiser take the next update of a variable's average into its own pass; {@link update} leaves it out then.
   * @returns `undefined` where the variable is not averaged here
   */
  averaging(variable: tf.Variable): { average: tf.Tensor; decay: number; next(average: tf.Tensor): void } | undefined {
    const i = this.#variables.indexOf(variable);
    if (i === -1 || this.#ahead.has(i)) return undefined;
    const next = (average: tf.Tensor): void => {
      this.#averages[i]!.dispose();
      this.#averages[i] = tf.keep(average);
      this.#ahead.add(i);
    };
    return { average: this.#averages[i]!, decay: this.#nextDecay, next };
  }

  /** Takes in the variables' present values. */
  update(): void {
    const decay = this.#nextDecay;
    this.#updates += 1;
    for (const [i, variable] of this.#variables.entries()) {
      if (this.#ahead.delete(i)) continue;
      const previous = this.#averages[i]!;
      this.#averages[i] = tf.keep(tf.tidy(() => tf.add(previous, tf.mul(tf.sub(variable, previous), 1 - decay))));
      previous.dispose();
    }
  }

  /** The averages in the order of the variables; owned here. */
  averages(): readonly tf.Tensor[] {
    return this.#averages;
  }

  /** Exchanges the variables' values with the averages; calling it again puts both back. */
  swap(): void {
    for (const [i, variable] of this.#variables.entries()) {
      const value = tf.keep(tf.clone(variable as tf.Tensor));
      variable.assign(this.#averages[i]!);
      this.#averages[i]!.dispose();
      this.#averages[i] = value;
    }
  }

  /**
   * Goes on from saved averages, which are copied.
   * @throws ArgumentError where there are not as many as variables, or `updates` is no count; ShapeError where one is of another shape
   */
  restore(averages: readonly tf.Tensor[], updates: number): void {
    if (averages.length !== this.#variables.length) throw new ArgumentError('Ema.restore: averages', averages.length, `${this.#variables.length} tensors`);
    checkShapes('Ema.restore: average', averages, this.#variables);
    checkCount('Ema.restore: updates', updates);
    tf.dispose(this.#averages);
    this.#averages = averages.map((t) => tf.keep(tf.clone(t)));
    this.#updates = updates;
    this.#ahead.clear();
  }

  dispose(): void {
    tf.dispose(this.#averages);
  }
}

import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/**
 * `loss`, with (loss − baseline) · ∇ log p added to its gradients: an unbiased estimate of the gates' gradient of the
 * expected loss from one draw, whatever was computed under it (REINFORCE, Williams 1992, section 4). Its noise is that of
 * the loss from batch to batch: it needs more steps than straight-through gradients, and a baseline.
 *
 * @param logProbability the draw's
 * @param baseline what the loss is expected to be, from earlier steps alone ({@link RunningBaseline}); `undefined`, at the
 * first step, adds nothing
 */
export function scoreFunction(loss: tf.Scalar, logProbability: tf.Scalar, baseline: number | undefined): tf.Scalar {
  const op = tf.customGrad((value, logP, save) => {
    (save as tf.GradSaveFunc)([value as tf.Tensor, logP as tf.Tensor]);
    const gradFunc = (dy: tf.Tensor, [saved, p]: tf.Tensor[]): tf.Tensor[] => [tf.clone(dy), baseline === undefined ? tf.zerosLike(p!) : tf.mul(dy, tf.sub(saved!, baseline))];
    return { value: tf.clone(value as tf.Tensor), gradFunc };
  });
  return op(loss, logProbability) as tf.Scalar;
}

/** The mean loss of recent steps, on the CPU. */
export class RunningBaseline {
  readonly #decay: number;
  #value: number | undefined;

  /** @param options `decay`: d in mean ← d · mean + (1 − d) · loss. Default 0.95 */
  constructor({ decay = 0.95 }: { decay?: number } = {}) {
    if (!(decay >= 0 && decay < 1)) throw new ArgumentError('RunningBaseline: decay', decay, 'a number in [0, 1)');
    this.#decay = decay;
  }

  /** `undefined` before the first loss. */
  get value(): number | undefined {
    return this.#value;
  }

  /** Goes on from an earlier value. */
  restore(value: number | undefined): void {
    this.#value = value;
  }

  /** Takes in a step's loss, after its gradients were taken; one that is not finite is left out. */
  update(loss: number): void {
    if (!Number.isFinite(loss)) return;
    this.#value = this.#value === undefined ? loss : this.#decay * this.#value + (1 - this.#decay) * loss;
  }
}

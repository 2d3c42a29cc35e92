import * as tf from '@tensorflow/tfjs-core';
import { type Pick, choiceMasks, logProbability, pickedChoice, pickedLayers, softChoice } from './choice.js';
import type { AnyGroup } from './groups.js';
import { straightThrough } from './straight-through.js';

/** What a {@link BatchDraw} is made of. */
export interface BatchDrawParts {
  groups: readonly AnyGroup[];
  gates: readonly tf.Variable[];
  /** One a group. */
  picks: readonly Pick[];
  /** One a group: the noise of each gate. */
  noise: readonly ArrayLike<number>[];
  tau: number;
  scaling: number;
}

/** One choice for a whole batch, known on the CPU before anything is computed. Holds no tensors. */
export class BatchDraw {
  readonly #parts: BatchDrawParts;
  /** Kept layers, ascending. */
  readonly kept: readonly number[];
  /** Number of layers that the gates choose from. */
  readonly units: number;

  constructor(parts: BatchDrawParts) {
    this.#parts = parts;
    this.kept = parts.groups.flatMap((group, i) => pickedLayers(group, parts.picks[i]!));
    this.units = parts.groups.reduce((sum, { size }) => sum + size, 0);
  }

  /**
   * Masks `[batch]` of every layer with the values of this draw and, for the present gates and the draw's noise, the
   * gradient of the relaxed choice. Called where gradients are recorded.
   */
  masks(batch: number): tf.Tensor1D[] {
    const { groups, gates, picks, noise, tau, scaling } = this.#parts;
    return tf.tidy(() =>
      groups.flatMap((group, i) => {
        const soft = softChoice(group, tf.add(tf.mul(gates[i]!, scaling), [Array.from(noise[i]!)]) as tf.Tensor2D, tau);
        const choice = straightThrough(tf.tensor2d([pickedChoice(group, picks[i]!)]), soft);
        // not tile, whose gradient is a loop over the batch
        return choiceMasks(group, tf.mul(choice, tf.ones([batch, 1])) as tf.Tensor2D);
      }),
    );
  }

  /** log p of this draw under the present gates, for {@link scoreFunction}. Called where gradients are recorded. */
  logProbability(): tf.Scalar {
    const { groups, gates, picks, scaling } = this.#parts;
    return tf.tidy(() => tf.addN(groups.map((group, i) => logProbability(group, tf.mul(gates[i]!, scaling) as tf.Tensor2D, picks[i]!))) as tf.Scalar);
  }
}

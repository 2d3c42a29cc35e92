import { ArgumentError, type Rng } from '@tinyfusion/core';
import { Module, requireRng } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { type Decision, decide } from './decision.js';
import { type Group, type GroupScheme, parseGroups } from './groups.js';

/** Options of {@link LayerGates}. */
export interface LayerGatesOptions {
  /** First value of every gate: a uniform choice. Default 0.02, the reference's. */
  init?: number;
}

/** Options of {@link LayerGates.fromScores}. */
export interface ScoresOptions extends LayerGatesOptions {
  /**
   * What one standard deviation of the scores adds to a gate. Default 0.01: at the paper's scaling of 100, a factor of e
   * in the odds of keeping a layer.
   */
  strength?: number;
  /** Which scores are to be kept. Similarities (ShortGPT's) and errors of replacement are kept where lowest. Default `'highest'`. */
  keep?: 'highest' | 'lowest';
}

/** Options of {@link LayerGates.sample}. */
export interface SampleMasksOptions {
  /** Temperature τ of the softmax. The paper takes it from 4 to 0.1. */
  tau: number;
  /** What gates are multiplied by before noise is added. The paper: 100. */
  scaling: number;
  /** Source of the Gumbel noise. */
  rng?: Rng;
  /** Replaces `rng`: noise by group, each `[N, options]`; borrowed. */
  gumbel?: readonly tf.Tensor2D[];
}

/** Masks of a batch. */
export interface SampledMasks {
  /** One a layer, `[N]`: exactly 0 or 1, with the gradient of the softmax (straight-through). */
  masks: tf.Tensor1D[];
  /** One a group, `[N, options]`: the one-hot choices. */
  choices: tf.Tensor2D[];
}

/**
 * Learnable choices of the layers to keep: for each group a vector of logits over its options (paper, section 3.3).
 * Upstream: the gates of `models_with_layer_pruning.py`.
 */
export class LayerGates extends Module {
  /** One a group, `[1, options]`. */
  readonly gates: tf.Variable[];
  readonly groups: readonly Group[];
  readonly depth: number;

  /** @throws ArgumentError where the scheme does not fit the depth */
  constructor(scheme: GroupScheme, depth: number, { init = 0.02 }: LayerGatesOptions = {}) {
    super();
    this.depth = depth;
    this.groups = parseGroups(scheme, depth);
    this.gates = this.groups.map(({ options }) => tf.tidy(() => tf.variable(tf.fill([1, options.length], init))));
  }

  /**
   * Gates that start from another criterion's scores: strength · Σ (score − mean)/deviation over the layers that an option
   * keeps, mean and standard deviation being those of all layers; equal scores make a uniform choice. Learning begins at
   * that criterion's choice and can leave it: the smaller the strength, the sooner. MaskLLM adds a prior mask to its logits
   * in the same way (Fang et al. 2024).
   *
   * @param scores one a layer
   * @throws ArgumentError where there are not as many scores as the scheme needs, or one is not finite
   */
  static fromScores(scheme: GroupScheme, scores: readonly number[], { strength = 0.01, keep = 'highest', init = 0.02, ...rest }: ScoresOptions = {}): LayerGates {
    if (!(strength >= 0 && strength < Infinity)) throw new ArgumentError('LayerGates.fromScores: strength', strength, 'a finite number from 0');
    if (!scores.every(Number.isFinite)) throw new ArgumentError('LayerGates.fromScores: scores', scores, 'finite numbers');
    const gates = new LayerGates(scheme, scores.length, { init, ...rest });
    const mean = scores.reduce((a, b) => a + b, 0) / scores.length;
    const deviation = Math.sqrt(scores.reduce((sum, s) => sum + (s - mean) ** 2, 0) / scores.length);
    const unit = deviation > 0 ? ((keep === 'highest' ? 1 : -1) * strength) / deviation : 0;
    for (const [i, { start, options }] of gates.groups.entries()) {
      const values = options.map((option) => option.reduce((sum, j) => sum + unit * (scores[start + j]! - mean), init));
      tf.tidy(() => gates.gates[i]!.assign(tf.tensor2d(values, [1, values.length])));
    }
    return gates;
  }

  /**
   * Draws masks for each sample of a batch: one-hot argmax of softmax((scaling · gate + gumbel)/τ), with the softmax's
   * gradient. Upstream: `gumbel_softmax(gate · scaling, τ, hard=True)`.
   *
   * @param batch N
   */
  sample(batch: number, { tau, scaling, rng, gumbel }: SampleMasksOptions): SampledMasks {
    if (!(tau > 0)) throw new ArgumentError('LayerGates.sample: tau', tau, 'more than 0');
    return tf.tidy(() => {
      const choices = this.groups.map(({ options }, i) => {
        const noise = gumbel?.[i] ?? tf.tensor2d(requireRng('LayerGates.sample: rng', rng).gumbel(batch * options.length), [batch, options.length]);
        const soft = tf.softmax(tf.div(tf.add(tf.mul(this.gates[i]!, scaling), noise), tau)) as tf.Tensor2D;
        return straightThrough(soft);
      });
      return { choices, masks: this.#masks(choices) };
    });
  }

  /** The masks of the most likely options, without noise: the decided model. Each `[batch]`. */
  decidedMasks(batch: number): tf.Tensor1D[] {
    return tf.tidy(() => this.#masks(this.gates.map((gate) => tf.tile(oneHotMax(gate as tf.Tensor as tf.Tensor2D), [batch, 1]))));
  }

  /** What the gates have decided so far; reads them back. `scaling` as in {@link sample}, for the confidence. */
  async decide(scaling: number): Promise<Decision> {
    const values = await Promise.all(this.gates.map((gate) => gate.data()));
    return decide(this.groups, values as Float32Array[], scaling);
  }

  /** Choices `[N, options]` of each group → masks `[N]` of each layer. */
  #masks(choices: readonly tf.Tensor2D[]): tf.Tensor1D[] {
    return this.groups.flatMap(({ size, options }, i) => {
      const table = tf.tensor2d(options.flatMap((kept) => Array.from({ length: size }, (_, j) => (kept.includes(j) ? 1 : 0))), [options.length, size]);
      return tf.unstack(tf.matMul(choices[i]!, table), 1) as tf.Tensor1D[];
    });
  }
}

/** One-hot of each row's maximum (the first where there are several), with the gradient of the row itself. */
function straightThrough(soft: tf.Tensor2D): tf.Tensor2D {
  const op = tf.customGrad((x) => ({ value: oneHotMax(x as tf.Tensor2D), gradFunc: (dy: tf.Tensor) => tf.clone(dy) }));
  return op(soft) as tf.Tensor2D;
}

function oneHotMax(x: tf.Tensor2D): tf.Tensor2D {
  return tf.tidy(() => tf.cast(tf.oneHot(tf.argMax(x, 1) as tf.Tensor1D, x.shape[1]), 'float32') as tf.Tensor2D);
}

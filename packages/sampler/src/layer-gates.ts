import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { gateValues } from './choice.js';
import { type Group, type GroupScheme, parseGroups } from './groups.js';
import { OptionGates } from './option-gates.js';

/** Options of {@link LayerGates}. */
export interface LayerGatesOptions {
  /** First value of every gate: a uniform choice. Default 0.02, the reference's. */
  init?: number;
  /** Groups with more options than this are relaxed: one logit a layer, of which the N highest stay. Default 20,000. */
  mostOptions?: number;
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

/**
 * Learnable choices of the layers to keep: for each group a vector of logits over its options (paper, section 3.3), or
 * over its layers where the options are too many to list.
 * Upstream: the gates of `models_with_layer_pruning.py`.
 */
export class LayerGates extends OptionGates<Group> {
  /** Number of layers. */
  readonly depth: number;

  /** @throws ArgumentError where the scheme does not fit the depth */
  constructor(scheme: GroupScheme, depth: number, { init = 0.02, mostOptions = 20_000 }: LayerGatesOptions = {}) {
    super(parseGroups(scheme, depth, { mostOptions }), init);
    this.depth = depth;
  }

  /**
   * Gates that start from another criterion's scores: strength · Σ (score − mean)/deviation over the layers that an option
   * keeps (or of a relaxed group's layer itself), mean and standard deviation being those of all layers; equal scores make a uniform choice. Learning begins at
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
    const weights = scores.map((s) => unit * (s - mean));
    for (const [i, group] of gates.groups.entries()) tf.tidy(() => gates.gates[i]!.assign(tf.tensor2d([gateValues(group, weights, init)])));
    return gates;
  }
}

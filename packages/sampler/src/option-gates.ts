import { ArgumentError, type Rng } from '@tinyfusion/core';
import { Module, requireRng } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { BatchDraw } from './batch-draw.js';
import { choiceMasks, drawChoice, gateCount, hardChoice, pick } from './choice.js';
import { type Decision, decide } from './decision.js';
import type { AnyGroup } from './groups.js';

/** Options of {@link OptionGates.sample}. */
export interface SampleMasksOptions {
  /** Temperature τ of the softmax. The paper takes it from 4 to 0.1. */
  tau: number;
  /** What gates are multiplied by before noise is added. The paper: 100. */
  scaling: number;
  /** A draw for each sample, or one for the whole batch. Default `'sample'`, as the paper. */
  per?: 'sample' | 'batch';
  /** Source of the Gumbel noise. */
  rng?: Rng;
  /** Replaces `rng`: noise by group, each `[N, gates]`, or `[1, gates]` for one draw a batch; borrowed. */
  gumbel?: readonly tf.Tensor2D[];
}

/** Options of {@link OptionGates.sampleForBatch}. */
export interface SampleForBatchOptions {
  /** As in {@link SampleMasksOptions}. */
  tau: number;
  /** As in {@link SampleMasksOptions}. */
  scaling: number;
  /** Source of the Gumbel noise. */
  rng?: Rng;
  /**
   * 0: draws from the present gates, and waits until the device has them. 1: draws from the gates of the draw before, which
   * are on the CPU by now, so that nothing waits; one optimiser step late. Default 0.
   */
  lag?: 0 | 1;
}

/** Masks of a batch. */
export interface SampledMasks {
  /** One a layer, `[N]`: exactly 0 or 1, with the gradient of the softmax or of the relaxed top N (straight-through). */
  masks: tf.Tensor1D[];
  /** One a group, `[N, gates]`: the one-hot choices; of relaxed groups, the masks. */
  choices: tf.Tensor2D[];
}

/** Values of the gates on their way to the CPU. */
interface GateRead {
  of: readonly object[];
  values: Promise<readonly ArrayLike<number>[]>;
}

/** Learnable choices, one a group, among the layers or branches of a model. */
export abstract class OptionGates<G extends AnyGroup = AnyGroup> extends Module {
  /** One a group, `[1, gates]`. */
  readonly gates: tf.Variable[];
  readonly groups: readonly G[];
  #reads: GateRead[] = [];

  /** @param init first value of every gate */
  protected constructor(groups: readonly G[], init: number) {
    super();
    this.groups = groups;
    this.gates = groups.map((group) => tf.tidy(() => tf.variable(tf.fill([1, gateCount(group)], init))));
  }

  /**
   * Draws masks for a batch: one-hot argmax of softmax((scaling · gate + gumbel)/τ), with the softmax's gradient.
   * Of relaxed groups, the N highest layers, with the gradient of their relaxation ({@link relaxedTopK}). Upstream: `gumbel_softmax(gate · scaling, τ, hard=True)`.
   *
   * @param batch N
   * @throws ArgumentError where an option is out of its range. That gates are finite is not looked at: it would be to wait for the device
   */
  sample(batch: number, { tau, scaling, per = 'sample', rng, gumbel }: SampleMasksOptions): SampledMasks {
    if (!Number.isInteger(batch) || batch < 1) throw new ArgumentError('sample: batch', batch, 'a positive integer');
    if (per !== 'sample' && per !== 'batch') throw new ArgumentError('sample: per', per, "'sample' or 'batch'");
    checkDraw('sample', tau, scaling);
    const rows = per === 'batch' ? 1 : batch;
    return tf.tidy(() => {
      const choices = this.groups.map((group, i) => {
        const count = gateCount(group);
        const noise = gumbel?.[i] ?? tf.tensor2d(requireRng('sample: rng', rng).gumbel(rows * count), [rows, count]);
        const choice = drawChoice(group, tf.add(tf.mul(this.gates[i]!, scaling), noise) as tf.Tensor2D, tau);
        // not tile, whose gradient is a loop over the batch
        return per === 'batch' ? (tf.mul(choice, tf.ones([batch, 1])) as tf.Tensor2D) : choice;
      });
      return { choices, masks: this.#masks(choices) };
    });
  }

  /**
   * One draw for a whole batch, known on the CPU, so that dropped layers need not be computed ({@link skippingHook}). The
   * gates are few: a copy of them is read whenever they have changed, and the draw is made here. The same distribution as
   * `sample` with `per: 'batch'`.
   * @throws ArgumentError where an option is out of its range, or a gate is not finite
   */
  async sampleForBatch({ tau, scaling, rng, lag = 0 }: SampleForBatchOptions): Promise<BatchDraw> {
    checkDraw('sampleForBatch', tau, scaling);
    const source = requireRng('sampleForBatch: rng', rng);
    const noise = this.groups.map((group) => source.gumbel(gateCount(group)));
    const before = this.#reads.at(-1);
    this.refresh();
    const values = await (lag === 1 && before !== undefined ? before : this.#reads.at(-1)!).values;
    const picks = this.groups.map((group, i) => pick(group, Array.from(values[i]!, (g, j) => g * scaling + noise[i]![j]!)));
    return new BatchDraw({ groups: this.groups, gates: this.gates, picks, noise, tau, scaling });
  }

  /** Starts to read the gates where they have changed, without waiting. Called after an optimiser step, it makes the next draw wait less. */
  refresh(): void {
    const of = this.gates.map((gate) => gate.dataId); // another one after each assignment
    if (this.#reads.at(-1)?.of.every((id, i) => id === of[i]) === true) return;
    const values = Promise.all(this.gates.map((gate) => gate.data()));
    values.catch(() => undefined); // whoever draws from it sees the failure
    this.#reads = [...this.#reads.slice(-1), { of, values }];
  }

  /** The masks of the most likely options, without noise: the decided model. Each `[batch]`. */
  decidedMasks(batch: number): tf.Tensor1D[] {
    return tf.tidy(() => this.#masks(this.groups.map((group, i) => tf.tile(hardChoice(group, this.gates[i] as tf.Tensor as tf.Tensor2D), [batch, 1]))));
  }

  /** What the gates have decided so far; reads them back. `scaling` as in {@link sample}, for the confidence. */
  async decide(scaling: number): Promise<Decision> {
    const values = await Promise.all(this.gates.map((gate) => gate.data()));
    return decide(this.groups, values as Float32Array[], scaling);
  }

  /** Choices `[N, gates]` of each group → masks `[N]` of each layer. */
  #masks(choices: readonly tf.Tensor2D[]): tf.Tensor1D[] {
    return this.groups.flatMap((group, i) => choiceMasks(group, choices[i]!));
  }
}

function checkDraw(method: string, tau: number, scaling: number): void {
  if (!(tau > 0 && tau < Infinity)) throw new ArgumentError(`${method}: tau`, tau, 'a finite number above 0');
  if (!(scaling >= 0 && scaling < Infinity)) throw new ArgumentError(`${method}: scaling`, scaling, 'a finite number from 0, e.g. 100');
}

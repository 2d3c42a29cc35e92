import { ArgumentError } from '@tinyfusion/core';
import type { BlockHook } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';

/** Bins of the histograms, in standard deviations of a sample: 0.5 wide, from 0 to 40; the last one takes what is beyond. */
const BINS = 81;
const BIN = 0.5;

/** How a layer's activations lie around their mean; plain JSON. */
export interface LayerActivations {
  /** Index of the block. */
  layer: number;
  /** Activations seen. */
  count: number;
  mean: number;
  /** Mean over samples of a sample's (unbiased) σ, which masks are measured by. */
  sigma: number;
  min: number;
  max: number;
  /** Fourth moment over squared variance; 3 for a Gaussian. */
  kurtosis: number;
  /** Share of activations at |h − mean| of at least 0, ½, 1, … σ of their sample: what a mask of k σ takes out. */
  beyond: number[];
  /** Share of the squared deviation that lies there. */
  energyBeyond: number[];
}

/**
 * Statistics of hidden states in a stream, by block: what the paper's figure 8 shows, and what a threshold can be chosen
 * by. Upstream: `visualize_activation.py`.
 */
export class ActivationStatistics {
  readonly #layers = new Map<number, { count: number; sum: number; square: number; fourth: number; sigmas: number; samples: number; min: number; max: number; bins: Float64Array; energy: Float64Array }>();
  readonly #waiting: { layer: number; state: tf.Tensor3D }[] = [];

  /** Collects what blocks put out while a model runs; call {@link endBatch} after each forward pass. */
  readonly hook: BlockHook = (site, x, run) => {
    const y = run(x);
    this.#waiting.push({ layer: site.index, state: tf.keep(tf.clone(y)) }); // freed by endBatch
    return y;
  };

  /** Reads a batch's states back and takes them in. */
  async endBatch(): Promise<void> {
    for (const { layer, state } of this.#waiting.splice(0)) {
      const values = (await state.data()) as Float32Array;
      const [samples] = state.shape;
      state.dispose();
      this.add(layer, values, samples);
    }
  }

  /**
   * @param values `[N, T, D]` of one block
   * @param samples N
   * @throws ArgumentError where a value is not finite
   */
  add(layer: number, values: ArrayLike<number>, samples: number): void {
    const size = values.length / samples;
    if (!Number.isInteger(size) || size < 2) throw new ArgumentError('ActivationStatistics.add: values', values.length, `a multiple of ${samples} samples, two values each at least`);
    const own = this.#layers.get(layer) ?? { count: 0, sum: 0, square: 0, fourth: 0, sigmas: 0, samples: 0, min: Infinity, max: -Infinity, bins: new Float64Array(BINS), energy: new Float64Array(BINS) };
    this.#layers.set(layer, own);
    for (let n = 0; n < samples; n++) {
      let mean = 0;
      for (let i = n * size; i < (n + 1) * size; i++) mean += values[i]! / size;
      if (!Number.isFinite(mean)) throw new ArgumentError(`activations of block ${layer}, sample ${n}: mean`, mean, 'a finite number');
      let variance = 0;
      for (let i = n * size; i < (n + 1) * size; i++) variance += (values[i]! - mean) ** 2 / (size - 1);
      const sigma = Math.sqrt(variance);
      for (let i = n * size; i < (n + 1) * size; i++) {
        const deviation = values[i]! - mean;
        const bin = sigma === 0 ? 0 : Math.min(BINS - 1, Math.floor(Math.abs(deviation) / sigma / BIN));
        own.bins[bin]! += 1;
        own.energy[bin]! += deviation ** 2;
        own.square += deviation ** 2;
        own.fourth += deviation ** 4;
        own.min = Math.min(own.min, values[i]!);
        own.max = Math.max(own.max, values[i]!);
      }
      own.sum += mean * size;
      own.sigmas += sigma;
      own.samples += 1;
      own.count += size;
    }
  }

  /** What was seen, in the order of the blocks. */
  layers(): LayerActivations[] {
    return [...this.#layers].toSorted(([a], [b]) => a - b).map(([layer, { count, sum, square, fourth, sigmas, samples, min, max, bins, energy }]) => ({
      layer,
      count,
      mean: sum / count,
      sigma: sigmas / samples,
      min,
      max,
      kurtosis: square === 0 ? 0 : (fourth / count) / (square / count) ** 2,
      beyond: tails(bins, count),
      energyBeyond: tails(energy, square === 0 ? 1 : square),
    }));
  }
}

/** Shares at or beyond the start of each bin. */
function tails(bins: Float64Array, total: number): number[] {
  let sum = 0;
  return Array.from(bins).toReversed().map((n) => (sum += n) / total).toReversed();
}

/** A mask that {@link proposeThreshold} would use; plain JSON. */
export interface ProposedThreshold {
  /** k: activations at k σ or more are massive. `Infinity`: there are none, no mask is needed. */
  sigmas: number;
  /** Largest share of a layer's activations that it masks. */
  masked: number;
  /** Largest share of a layer's squared deviation that it masks. */
  energy: number;
  why: string;
}

/**
 * A threshold from the activations' own distribution. Activations count as massive where they are far rarer than they
 * weigh: at `from` σ or more they must hold at least `energy` of the squared deviation in some layer. Then the smallest k
 * is taken that masks at most `share` of the activations of every layer (the paper's 2 σ masks 4.6 % of a Gaussian's).
 *
 * @param layers of `ActivationStatistics`
 * @throws ArgumentError where there are no layers, or an option is out of its range
 */
export function proposeThreshold(layers: readonly LayerActivations[], { share = 0.05, from = 6, energy = 0.05 }: { share?: number; from?: number; energy?: number } = {}): ProposedThreshold {
  if (layers.length === 0) throw new ArgumentError('proposeThreshold: layers', 0, 'the statistics of one at least');
  if (!(share > 0 && share < 1)) throw new ArgumentError('proposeThreshold: share', share, 'a number between 0 and 1');
  if (!(energy > 0 && energy <= 1)) throw new ArgumentError('proposeThreshold: energy', energy, 'a share above 0, 1 at most');
  if (!(from >= 0 && from <= (BINS - 1) * BIN)) throw new ArgumentError('proposeThreshold: from', from, `a number of standard deviations from 0 to ${(BINS - 1) * BIN}`);
  const most = (k: number, of: 'beyond' | 'energyBeyond'): number => Math.max(...layers.map((layer) => layer[of][Math.min(BINS - 1, Math.round(k / BIN))]!));
  const heaviest = layers.reduce((a, b) => (tail(b, from) > tail(a, from) ? b : a));
  if (tail(heaviest, from) < energy) return { sigmas: Infinity, masked: 0, energy: 0, why: `no layer has more than ${(100 * tail(heaviest, from)).toFixed(1)} % of its squared deviation at ${from} σ or more: there are no massive activations` };
  let sigmas = BIN;
  while (sigmas < (BINS - 1) * BIN && most(sigmas, 'beyond') > share) sigmas += BIN;
  return { sigmas, masked: most(sigmas, 'beyond'), energy: most(sigmas, 'energyBeyond'), why: `block ${heaviest.layer} has ${(100 * tail(heaviest, from)).toFixed(0)} % of its squared deviation at ${from} σ or more; ${sigmas} σ masks ${(100 * most(sigmas, 'beyond')).toFixed(1)} % of the activations at most` };
}

const tail = (layer: LayerActivations, k: number): number => layer.energyBeyond[Math.round(k / BIN)]!;

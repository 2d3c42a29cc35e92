import { ArgumentError, TinyFusionError } from '@tinyfusion/core';
import type { LayerPair } from './layer-map.js';

/** Options of {@link FeatureGuard}. */
export interface FeatureGuardOptions {
  /** How many times its typical value a layer's loss may be. Default 20. */
  factor?: number;
  /** How many steps in a row it must be beyond that. Default 3. */
  patience?: number;
  /** Steps whose losses are remembered as typical. Default 50; half of them pass before anything is judged. */
  window?: number;
}

/** What a {@link FeatureGuard} has seen, by layer: recent losses, and steps in a row that were too high. */
export interface FeatureGuardState {
  recent: number[][];
  beyond: number[];
}

/** What {@link FeatureGuard.check} found wrong. */
export interface FeatureExplosion {
  step: number;
  /** Student's and teacher's block. */
  pair: LayerPair;
  value: number;
  /** Median over the last steps. */
  typical: number;
  /** A sentence to show, with what to do. */
  message: string;
}

/**
 * Watches the feature loss of each mapped layer and names the one that explodes, before it has destroyed the weights:
 * without a mask, massive activations end the paper's RepKD in NaN (table 5).
 */
export class FeatureGuard {
  readonly #pairs: readonly LayerPair[];
  readonly #factor: number;
  readonly #patience: number;
  readonly #window: number;
  readonly #recent: number[][];
  readonly #beyond: number[];

  constructor(pairs: readonly LayerPair[], { factor = 20, patience = 3, window = 50 }: FeatureGuardOptions = {}) {
    if (!(factor > 1)) throw new ArgumentError('FeatureGuardOptions.factor', factor, 'more than 1');
    for (const [name, value] of [['patience', patience], ['window', window]] as const) if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`FeatureGuardOptions.${name}`, value, 'a positive integer');
    this.#pairs = pairs;
    [this.#factor, this.#patience, this.#window] = [factor, patience, window];
    this.#recent = pairs.map(() => []);
    this.#beyond = pairs.map(() => 0);
  }

  /** What it has seen, as plain JSON. */
  state(): FeatureGuardState {
    return { recent: this.#recent.map((values) => [...values]), beyond: [...this.#beyond] };
  }

  /** Goes on from what another has seen. @throws ArgumentError where that watched another number of layers */
  restore({ recent, beyond }: FeatureGuardState): void {
    if (recent.length !== this.#pairs.length) throw new ArgumentError('FeatureGuard.restore: recent', recent.length, `${this.#pairs.length}, one for each mapped layer`);
    for (const [i, values] of recent.entries()) this.#recent[i] = [...values];
    for (const [i, value] of beyond.entries()) this.#beyond[i] = value;
  }

  /**
   * Takes in a step's losses, one a pair, read back from the device.
   * @returns what exploded at this step; nothing where all is well
   */
  check(step: number, losses: ArrayLike<number>): FeatureExplosion | undefined {
    if (losses.length !== this.#pairs.length) throw new ArgumentError('FeatureGuard.check: losses', losses.length, `${this.#pairs.length}, one for each mapped layer`);
    for (const [i, pair] of this.#pairs.entries()) {
      const value = losses[i]!;
      const recent = this.#recent[i]!;
      const typical = median(recent);
      if (!Number.isFinite(value)) return explosion(step, pair, value, typical);
      const judged = recent.length >= this.#window / 2;
      this.#beyond[i] = judged && value > this.#factor * typical ? this.#beyond[i]! + 1 : 0;
      if (this.#beyond[i]! >= this.#patience) return explosion(step, pair, value, typical);
      // what is beyond is not typical
      if (this.#beyond[i] === 0) recent.push(value);
      if (recent.length > this.#window) recent.shift();
    }
    return undefined;
  }

  /** {@link check}, as an error. @throws TinyFusionError `FEATURE_EXPLOSION` */
  watch(step: number, losses: ArrayLike<number>): void {
    const found = this.check(step, losses);
    if (found !== undefined) throw new TinyFusionError('FEATURE_EXPLOSION', found.message);
  }
}

function explosion(step: number, pair: LayerPair, value: number, typical: number): FeatureExplosion {
  const usual = Number.isFinite(typical) ? `, usually ${typical.toPrecision(3)}` : '';
  return { step, pair, value, typical, message: `at step ${step} the feature loss of student block ${pair[0]} against teacher block ${pair[1]} is ${Number.isFinite(value) ? value.toPrecision(3) : value}${usual}: mask massive activations (sigmas 2), or lower the feature weight (beta) or the learning rate` };
}

function median(values: readonly number[]): number {
  if (values.length === 0) return Number.NaN;
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}

import { ArgumentError, TinyFusionError } from '@tinyfusion/core';
import type { LayerPair } from './layer-map.js';

/** Options of {@link FeatureGuard}. */
export interface FeatureGuardOptions {
  /** How many times its typical value a layer's loss may be. Default 20. */
  factor?: number;
  /** How many steps in a row it must be beyond that. Default 3. */
  patience?: number;
  /** Steps whose losses have a median together; the lowest that it has been is what is typical. Default 50. */
  window?: number;
  /** Steps before the first median. Default 5. */
  grace?: number;
}

/** What a {@link FeatureGuard} has seen, by layer: recent losses, what is typical, and steps in a row that were too high. */
export interface FeatureGuardState {
  recent: number[][];
  /** The lowest median; `null` where there is nothing to compare with yet. */
  lowest: (number | null)[];
  beyond: number[];
  /** Mean squares of the teacher's states, where they were given. */
  energies?: number[];
}

/** What {@link FeatureGuard.check} found wrong. */
export interface FeatureExplosion {
  step: number;
  /** Student's and teacher's block. */
  pair: LayerPair;
  value: number;
  /** The lowest median so far, or what a healthy loss may begin with; NaN where neither is known yet. */
  typical: number;
  /** A sentence to show, with what to do. */
  message: string;
}

/**
 * Watches the feature loss of each mapped layer and names the one that explodes, before it has destroyed the weights:
 * without a mask, massive activations end the paper's RepKD in NaN (table 5). What is typical is the lowest that the
 * median over recent steps has been, so that an explosion is not taken for typical, however slow it is; before there is a
 * median it is the first loss or the teacher's own mean square, whichever is more.
 */
export class FeatureGuard {
  readonly #pairs: readonly LayerPair[];
  readonly #factor: number;
  readonly #patience: number;
  readonly #window: number;
  readonly #grace: number;
  readonly #recent: number[][];
  readonly #lowest: number[];
  readonly #beyond: number[];
  #energies: readonly number[] | undefined;

  constructor(pairs: readonly LayerPair[], { factor = 20, patience = 3, window = 50, grace = 5 }: FeatureGuardOptions = {}) {
    if (!(factor > 1)) throw new ArgumentError('FeatureGuardOptions.factor', factor, 'more than 1');
    for (const [name, value] of [['patience', patience], ['window', window], ['grace', grace]] as const) if (!Number.isInteger(value) || value < 1) throw new ArgumentError(`FeatureGuardOptions.${name}`, value, 'a positive integer');
    this.#pairs = pairs;
    [this.#factor, this.#patience, this.#window, this.#grace] = [factor, patience, window, grace];
    this.#recent = pairs.map(() => []);
    this.#lowest = pairs.map(() => Number.NaN);
    this.#beyond = pairs.map(() => 0);
  }

  /** Whether it knows the mean squares of the teacher's states. */
  get hasEnergies(): boolean {
    return this.#energies !== undefined;
  }

  /** What it has seen, as plain JSON. */
  state(): FeatureGuardState {
    const energies = this.#energies === undefined ? {} : { energies: [...this.#energies] };
    return { recent: this.#recent.map((values) => [...values]), lowest: this.#lowest.map((value) => (Number.isNaN(value) ? null : value)), beyond: [...this.#beyond], ...energies };
  }

  /** Goes on from what another has seen. @throws ArgumentError where that watched another number of layers */
  restore({ recent, lowest, beyond, energies }: FeatureGuardState): void {
    if (recent.length !== this.#pairs.length) throw new ArgumentError('FeatureGuard.restore: recent', recent.length, `${this.#pairs.length}, one for each mapped layer`);
    for (const [i, values] of recent.entries()) this.#recent[i] = [...values];
    // runs of before had medians alone
    for (const [i, values] of recent.entries()) this.#lowest[i] = (lowest as typeof lowest | undefined)?.[i] ?? (values.length >= this.#grace ? median(values) : Number.NaN);
    for (const [i, value] of beyond.entries()) this.#beyond[i] = value;
    this.#energies = energies;
  }

  /**
   * Takes in a step's losses, one a pair, read back from the device.
   * @param energies mean squares of the teacher's states as the losses see them, wanted once: with them the first steps are
   * judged too, and a loss below them is no explosion, as where a student's first block is the teacher's and its loss rises
   * from 0
   * @returns what exploded at this step; nothing where all is well
   */
  check(step: number, losses: ArrayLike<number>, energies?: ArrayLike<number>): FeatureExplosion | undefined {
    for (const [name, values] of [['losses', losses], ['energies', energies]] as const) if (values !== undefined && values.length !== this.#pairs.length) throw new ArgumentError(`FeatureGuard.check: ${name}`, values.length, `${this.#pairs.length}, one for each mapped layer`);
    // the first layer that is not finite makes those after it so
    for (const [i, pair] of this.#pairs.entries()) if (!Number.isFinite(losses[i])) return explosion(step, pair, losses[i]!, this.#lowest[i]!);
    if (energies !== undefined) {
      this.#energies = Array.from(energies);
      for (const [i, typical] of this.#lowest.entries()) if (Number.isNaN(typical)) this.#lowest[i] = Math.max(losses[i]!, energies[i]!);
    }
    for (const [i, pair] of this.#pairs.entries()) {
      const [value, recent, typical] = [losses[i]!, this.#recent[i]!, this.#lowest[i]!];
      // what is beyond is not typical; before there is anything typical nothing is beyond
      this.#beyond[i] = value > this.#factor * typical && value > (this.#energies?.[i] ?? 0) ? this.#beyond[i]! + 1 : 0;
      if (this.#beyond[i]! >= this.#patience) return explosion(step, pair, value, typical);
      if (this.#beyond[i]! > 0) continue;
      recent.push(value);
      if (recent.length > this.#window) recent.shift();
      // a median of now alone would rise with what explodes slowly
      if (recent.length >= this.#grace) this.#lowest[i] = Math.min(median(recent), Number.isNaN(typical) ? Infinity : typical);
    }
    return undefined;
  }

  /** {@link check}, as an error. @throws TinyFusionError `FEATURE_EXPLOSION` */
  watch(step: number, losses: ArrayLike<number>, energies?: ArrayLike<number>): void {
    const found = this.check(step, losses, energies);
    if (found !== undefined) throw new TinyFusionError('FEATURE_EXPLOSION', found.message);
  }
}

function explosion(step: number, pair: LayerPair, value: number, typical: number): FeatureExplosion {
  const usual = Number.isFinite(typical) ? `, usually ${typical.toPrecision(3)}` : '';
  return { step, pair, value, typical, message: `at step ${step} the feature loss of student block ${pair[0]} against teacher block ${pair[1]} is ${Number.isFinite(value) ? value.toPrecision(3) : value}${usual}: mask massive activations (sigmas 2), or lower the feature weight (beta) or the learning rate` };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}

import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { BlockHook } from './block-hook.js';

/** Whether a step computes all its blocks, or reuses what they added before; by the number of the step, from 0. */
export type StepSchedule = readonly boolean[];

/** Options of {@link StepCache}. */
export interface StepCacheOptions {
  /**
   * When blocks are computed again. A step's distance to another is that of what the first block adds to the tokens,
   * ‖r − r′‖₁ / ‖r′‖₁.
   *
   * - `'first-block'`: once the distance to the last computed step reaches the threshold
   * - `'accumulated'`: once the distances from step to step, summed since the last computed one, reach it
   *
   * Default `'first-block'`. Both read one number back a step; a schedule reads none.
   */
  rule?: 'first-block' | 'accumulated';
  /** 0 computes every step. */
  threshold: number;
  /** The most steps in a row that reuse. Default 3. */
  most?: number;
}

/** A model's pass with a hook around its blocks. */
export type HookedPass<T extends tf.Tensor> = (x: tf.Tensor, t: tf.Tensor1D, hook: BlockHook) => T;

/** What a {@link StepCache} did. */
export interface StepCacheReport {
  /** Of each step, whether its blocks were computed. */
  readonly schedule: StepSchedule;
  /** The distances that were measured, in order. */
  readonly distances: readonly number[];
}

interface Stored {
  /** What blocks 1 … add to the tokens after block 0. */
  residual: tf.Tensor3D;
  /** What block 0 added when that was computed. */
  first: tf.Tensor3D;
}

/**
 * Step caching: from one step of a sampler to the next, what the blocks after the first add to the tokens changes
 * little, so a step may add what an earlier one did and run its first block alone. The picture changes with it: see
 * `calibrateStepCache`, which measures by how much. For models whose tokens stand for the same places at each step.
 *
 * One cache serves one run of a sampler.
 */
export class StepCache {
  readonly #given: StepSchedule | undefined;
  readonly #rule: 'first-block' | 'accumulated';
  readonly #threshold: number;
  readonly #most: number;
  readonly #stored = new Map<string, Stored>();
  readonly #schedule: boolean[] = [];
  readonly #distances: number[] = [];
  #previous: tf.Tensor3D | undefined;
  #sum = 0;
  #inRow = 0;

  /**
   * @param options a rule, or a schedule that was found before; steps past its end are computed
   * @throws ArgumentError where the threshold is negative or no number, or rule or schedule are none
   */
  constructor(options: StepCacheOptions | { schedule: StepSchedule }) {
    const { rule = 'first-block', threshold, most = 3 } = 'schedule' in options ? { threshold: 0 } : options;
    if (!(threshold >= 0)) throw new ArgumentError('StepCacheOptions.threshold', threshold, 'a number of at least 0');
    if (!Number.isInteger(most) || most < 1) throw new ArgumentError('StepCacheOptions.most', most, 'a positive integer');
    if (rule !== 'first-block' && rule !== 'accumulated') throw new ArgumentError('StepCacheOptions.rule', rule, "'first-block' or 'accumulated'");
    if ('schedule' in options && !(Array.isArray(options.schedule) && options.schedule.every((computed) => typeof computed === 'boolean'))) throw new ArgumentError('StepCacheOptions.schedule', options.schedule, 'a list of booleans, one a step');
    this.#given = 'schedule' in options ? options.schedule : undefined;
    this.#rule = rule;
    this.#threshold = threshold;
    this.#most = most;
  }

  /** What was decided so far; its schedule may be given to another cache. */
  report(): StepCacheReport {
    return { schedule: [...this.#schedule], distances: [...this.#distances] };
  }

  /**
   * A denoiser that caches.
   * @param pass the model with its conditions closed over
   */
  around<T extends tf.Tensor>(pass: HookedPass<T>): (x: tf.Tensor, t: tf.Tensor1D) => Promise<T> {
    return async (x, t) => {
      const computed = (first?: tf.Tensor3D): T => {
        this.#schedule.push(true);
        this.#sum = 0;
        this.#inRow = 0;
        return tf.keep(pass(x, t, this.#computing(first)));
      };
      if (this.#stored.size === 0 || (this.#given?.[this.#schedule.length] ?? this.#given !== undefined)) return computed();
      // the pass is tried with what is stored: where that is close enough, it is the result
      const probes: Probe[] = [];
      // kept, as the caller may be a tidy that ends before the promise
      const output = tf.keep(pass(x, t, this.#reusing((probe) => probes.push(probe))));
      const [probe] = probes;
      try {
        if (probe !== undefined && (this.#given !== undefined || (await this.#isNear(probe)))) {
          this.#schedule.push(false);
          this.#inRow += 1;
          return output;
        }
        output.dispose();
        return computed(probe?.after);
      } finally {
        for (const { input, after } of probes) tf.dispose([input, after]);
      }
    };
  }

  /** Frees what is stored. */
  dispose(): void {
    for (const { residual, first } of this.#stored.values()) tf.dispose([residual, first]);
    this.#stored.clear();
    this.#previous?.dispose();
    this.#previous = undefined;
  }

  /** Runs all blocks and stores what they add. @param given the first block's output, where it is known */
  #computing(given?: tf.Tensor3D): BlockHook {
    let first: tf.Tensor3D | undefined;
    let added: tf.Tensor3D | undefined;
    let isFirstStack = true;
    return ({ stack, index, depth }, x, run) => {
      const y = index === 0 && isFirstStack && given !== undefined ? tf.clone(given) : run(x);
      if (depth === 1) return y;
      if (index === 0) {
        isFirstStack = false;
        first = tf.keep(tf.clone(y));
        added = tf.keep(tf.sub<tf.Tensor3D>(y, x));
      }
      if (index === depth - 1) {
        tf.dispose(Object.values(this.#stored.get(stack) ?? {}));
        this.#stored.set(stack, { residual: tf.keep(tf.sub<tf.Tensor3D>(y, first!)), first: added! });
        first!.dispose();
      }
      return y;
    };
  }

  /** Runs the first block of each stack, and adds what is stored instead of the others. @param probe is given the first stack's */
  #reusing(probe: (made: Probe) => void): BlockHook {
    let isFirstStack = true;
    return ({ stack, index, depth }, x, run) => {
      const stored = this.#stored.get(stack);
      // of other sizes than before: not to be reused
      if (depth === 1 || stored === undefined || stored.residual.shape.join() !== x.shape.join()) return run(x);
      if (index > 0) return index === depth - 1 ? tf.add<tf.Tensor3D>(x, stored.residual) : x;
      const y = run(x);
      if (isFirstStack) probe({ input: tf.keep(tf.clone(x)), after: tf.keep(tf.clone(y)) });
      isFirstStack = false;
      return y;
    };
  }

  /** Whether a step may reuse. */
  async #isNear({ input, after }: Probe): Promise<boolean> {
    const [computed] = this.#stored.values();
    const before = this.#previous ?? computed!.first;
    const distance = tf.tidy(() => {
      const now = tf.sub<tf.Tensor3D>(after, input);
      const result = tf.div(tf.sum(tf.abs(tf.sub(now, before))), tf.sum(tf.abs(before)));
      if (this.#rule === 'accumulated') {
        this.#previous?.dispose();
        this.#previous = tf.keep(now);
      }
      return result;
    });
    const [value] = await distance.data();
    distance.dispose();
    this.#distances.push(value!);
    this.#sum = this.#rule === 'accumulated' ? this.#sum + value! : value!;
    return this.#sum < this.#threshold && this.#inRow < this.#most;
  }
}

/** What went into the first block, and came out of it. */
interface Probe {
  input: tf.Tensor3D;
  after: tf.Tensor3D;
}

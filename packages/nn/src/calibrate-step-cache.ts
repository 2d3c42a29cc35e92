import { ArgumentError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { type HookedPass, StepCache, type StepCacheOptions, type StepSchedule } from './step-cache.js';

/** Options of {@link calibrateStepCache}. */
export interface CalibrateStepCacheOptions extends Omit<StepCacheOptions, 'threshold'>, LongTaskOptions {
  /** The largest relative error of the end result that is accepted. */
  error: number;
  /** Thresholds to try, from the least. Default 0.01, 0.02, 0.05, 0.1, 0.2, 0.3. */
  thresholds?: readonly number[];
}

/** What a threshold costs and brings, on the run it was measured on. */
export interface StepCacheTrial {
  threshold: number;
  schedule: StepSchedule;
  /** Share of the steps that computed all their blocks. */
  computed: number;
  /** ‖x − x₀‖₂ / ‖x₀‖₂ of the end result against that of a run without cache. */
  error: number;
}

/** What {@link calibrateStepCache} found. */
export interface StepCacheCalibration {
  readonly trials: readonly StepCacheTrial[];
  /** The trial with the fewest computed steps within the error; `undefined` where there is none: cache nothing. */
  readonly chosen: StepCacheTrial | undefined;
}

/** Makes a denoiser of a model's pass. */
export type Around = <T extends tf.Tensor>(pass: HookedPass<T>) => (x: tf.Tensor, t: tf.Tensor1D) => Promise<T>;

/**
 * Measures what step caching does to a model's samples: one run without cache, then one for each threshold from the
 * same noise, until the error is reached. The chosen schedule serves other runs of as many steps: `new StepCache({ schedule })`.
 *
 * @param sample one run of the sampler over the same noise at each call, e.g. of one image; returns the end result,
 * which is freed here
 */
export async function calibrateStepCache(sample: (around: Around) => Promise<tf.Tensor>, options: CalibrateStepCacheOptions): Promise<StepCacheCalibration> {
  const { error: accepted, thresholds = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3], signal, onProgress, ...rule } = options;
  if (!(accepted > 0)) throw new ArgumentError('CalibrateStepCacheOptions.error', accepted, 'a number above 0');
  const plain: Around = (pass) => async (x, t) => tf.keep(pass(x, t, (_site, h, run) => run(h)));
  const total = thresholds.length + 1;
  const wanted = await sample(plain);
  const trials: StepCacheTrial[] = [];
  try {
    onProgress?.({ task: 'calibrate step cache', step: 1, total, unit: 'run' });
    for (const [i, threshold] of thresholds.entries()) {
      throwIfCancelled(signal, 'calibrate step cache');
      const cache = new StepCache({ ...rule, threshold });
      try {
        const result = await sample((pass) => cache.around(pass));
        const [error] = await measured(() => tf.div(tf.norm(tf.sub(result, wanted)), tf.norm(wanted)), result);
        const { schedule } = cache.report();
        trials.push({ threshold, schedule, computed: schedule.filter(Boolean).length / schedule.length, error: error! });
      } finally {
        cache.dispose();
      }
      onProgress?.({ task: 'calibrate step cache', step: i + 2, total, unit: 'run', values: { threshold, error: trials.at(-1)!.error, computed: trials.at(-1)!.computed } });
      if (!(trials.at(-1)!.error <= accepted)) break;
    }
  } finally {
    wanted.dispose();
  }
  const within = trials.filter(({ error, computed }) => error <= accepted && computed < 1).toSorted((a, b) => a.computed - b.computed || a.error - b.error);
  onProgress?.({ task: 'calibrate step cache', step: total, total, unit: 'run' });
  return { trials, chosen: within[0] };
}

async function measured(number: () => tf.Tensor, used: tf.Tensor): Promise<Float32Array> {
  const value = tf.tidy(number);
  used.dispose();
  const data = (await value.data()) as Float32Array;
  value.dispose();
  return data;
}

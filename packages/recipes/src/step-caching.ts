import { ArgumentError, type LongTaskOptions } from '@tinyfusion/core';
import type { AsyncDenoiser } from '@tinyfusion/diffusion';
import { type Around, type HookedPass, StepCache, type StepCacheCalibration, type StepSchedule, calibrateStepCache } from '@tinyfusion/nn';
import type * as tf from '@tensorflow/tfjs-core';

/** Options of samplers that may leave out blocks on some steps. */
export interface StepCaching {
  /** Which steps compute all their blocks, as {@link findStepSchedule} found it. Default: all. */
  schedule?: StepSchedule;
  /** Stands around each pass of the model in place of a schedule, as calibration does. Default: none. */
  around?: Around;
}

/** A pass of a model as a denoiser; `dispose` frees what it stored. */
export function cachedPass(pass: HookedPass<tf.Tensor4D>, { schedule, around }: StepCaching): { pass: AsyncDenoiser; dispose: () => void } {
  if (around !== undefined) return { pass: around(pass) as AsyncDenoiser, dispose: () => {} };
  if (schedule === undefined) return { pass: (x, t) => pass(x, t, (_site, h, run) => run(h)), dispose: () => {} };
  const cache = new StepCache({ schedule });
  return { pass: cache.around(pass) as AsyncDenoiser, dispose: () => cache.dispose() };
}

/** @throws ArgumentError where steps are to be cached of a sampler that cannot */
export function refuseStepCache({ schedule, around }: StepCaching): void {
  if (schedule !== undefined || around !== undefined) throw new ArgumentError('step cache', 'given', 'a sampler whose steps are known and see the same tokens: DiT’s, or SiT’s with the SDE');
}

/** What {@link findStepSchedule} needs. */
export interface FindStepScheduleOptions extends LongTaskOptions {
  /** The largest relative error of the end result. */
  error: number;
}

/**
 * Measures on one sample which steps can do without their blocks.
 *
 * Cost: two to seven times the sample. Expected: for an error of 5 % a third to a half of the steps.
 *
 * @param sample draws the same sample at each call, with the options it is given
 */
export function findStepSchedule(sample: (caching: StepCaching) => Promise<tf.Tensor>, options: FindStepScheduleOptions): Promise<StepCacheCalibration> {
  return calibrateStepCache((around) => sample({ around }), options);
}

/** What a calibration found, in a sentence; the schedule to use, if any. */
export function toldCalibration({ chosen, trials }: StepCacheCalibration, accepted: number): string {
  if (chosen === undefined) {
    const skipping = trials.find(({ computed }) => computed < 1);
    const why = skipping === undefined ? `no tried threshold, up to ${trials.at(-1)!.threshold}, leaves out the blocks of a step` : `the least of the tried thresholds that leaves out blocks of a step, ${skipping.threshold}, has an error of ${skipping.error.toFixed(3)}, accepted are ${accepted}`;
    return `step cache: none; ${why}`;
  }
  return `step cache: ${chosen.schedule.filter(Boolean).length} of ${chosen.schedule.length} steps compute all blocks; relative error ${chosen.error.toFixed(3)} on the sample it was measured on (accepted: ${accepted})`;
}

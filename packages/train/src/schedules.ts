import { ArgumentError } from '@tinyfusion/core';

/** A number that depends on the step, counted from 0. */
export type Schedule = (step: number) => number;

/** The same number at every step. @throws ArgumentError where it is below 0 or not finite, which would climb a loss or end it */
export function constant(value: number): Schedule {
  checkRate('constant: value', value);
  return () => value;
}

/** Options of {@link cosine}. */
export interface CosineOptions {
  /** Value at step 0. */
  from: number;
  /** Value at step `steps` and after (`eta_min`). The paper's recovery: half of `from`. */
  to: number;
  /** `T_max`. */
  steps: number;
}

/** Half a cosine from `from` to `to`, as `CosineAnnealingLR` over one period. @throws ArgumentError where one is below 0 or not finite, or there are no steps */
export function cosine({ from, to, steps }: CosineOptions): Schedule {
  checkRate('CosineOptions.from', from);
  checkRate('CosineOptions.to', to);
  if (!(steps > 0)) throw new ArgumentError('CosineOptions.steps', steps, 'more than 0');
  return (step) => to + ((from - to) * (1 + Math.cos((Math.PI * Math.min(step, steps)) / steps))) / 2;
}

/** Rises linearly to `schedule` over the first `steps` steps. */
export function withWarmUp(schedule: Schedule, steps: number): Schedule {
  return (step) => schedule(step) * Math.min(1, (step + 1) / Math.max(1, steps));
}

function checkRate(argument: string, value: number): void {
  if (!(value >= 0 && value < Infinity)) throw new ArgumentError(argument, value, 'a finite number from 0');
}

/** A value that goes from one number to another over a run. */
export type GateSchedule = (step: number, steps: number) => number;

/** Straight from `from` at step 0 to `to` at the last step. */
export const linear =
  (from: number, to: number): GateSchedule =>
  (step, steps) =>
    from + ((to - from) * step) / Math.max(1, steps - 1);

/** Half a cosine from `from` to `to`. */
export const cosine =
  (from: number, to: number): GateSchedule =>
  (step, steps) =>
    to + ((from - to) * (1 + Math.cos((Math.PI * step) / Math.max(1, steps - 1)))) / 2;

/** By a constant factor a step from `from` to `to`, both positive. */
export const exponential =
  (from: number, to: number): GateSchedule =>
  (step, steps) =>
    from * (to / from) ** (step / Math.max(1, steps - 1));

/** The paper's temperature: 4 → 0.1. */
export const defaultTau: GateSchedule = linear(4, 0.1);

/** The paper's scaling: 100 throughout. */
export const defaultScaling: GateSchedule = linear(100, 100);

import { ArgumentError, TinyFusionError, throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/** Ways to solve an ODE: five of fixed steps, and Dormand–Prince 5(4), which chooses its own. Names are torchdiffeq's. */
export type OdeMethod = 'euler' | 'midpoint' | 'heun2' | 'heun3' | 'rk4' | 'dopri5';

/** Parts of a state that are integrated together. */
export type OdeState = readonly tf.Tensor[];

/** dy/dt at a time: new tensors, and nothing else is left behind. `y` is borrowed until they are there. */
export type Derivative = (t: number, y: OdeState) => tf.Tensor[] | Promise<tf.Tensor[]>;

/** A state on the way. */
export interface OdePoint {
  /** Index into the times. */
  index: number;
  t: number;
  /** Belongs to the integrator until the next point is asked for; the last one's to the caller. */
  y: tf.Tensor[];
  /** Evaluations of the derivative so far. */
  evaluations: number;
}

/** Options of {@link integrate}. */
export interface IntegrateOptions {
  method: OdeMethod;
  /** Default 1e-6, as SiT's. Adaptive methods only, like the next. */
  absoluteTolerance?: number;
  /** Default 1e-3, as SiT's. */
  relativeTolerance?: number;
  /**
   * Whether the last step of an adaptive method ends at the last time. Default `false`: it may reach beyond, and the state
   * is interpolated, as torchdiffeq does.
   */
  stopAtEnd?: boolean;
  /** What is being computed, for messages. */
  task: string;
  signal?: AbortSignal | undefined;
}

/** Stages of an explicit Runge–Kutta method: times, weights of the slopes before, weights of the result. */
interface Tableau {
  nodes: readonly number[];
  rows: readonly (readonly number[])[];
  result: readonly number[];
}

const tableaus: Readonly<Record<Exclude<OdeMethod, 'dopri5'>, Tableau>> = {
  euler: { nodes: [0], rows: [[]], result: [1] },
  midpoint: { nodes: [0, 1 / 2], rows: [[], [1 / 2]], result: [0, 1] },
  heun2: { nodes: [0, 1], rows: [[], [1]], result: [1 / 2, 1 / 2] },
  heun3: { nodes: [0, 1 / 3, 2 / 3], rows: [[], [1 / 3], [0, 2 / 3]], result: [1 / 4, 0, 3 / 4] },
  // the 3/8 rule, which torchdiffeq calls rk4
  rk4: { nodes: [0, 1 / 3, 2 / 3, 1], rows: [[], [1 / 3], [-1 / 3, 1], [1, -1, 1]], result: [1 / 8, 3 / 8, 3 / 8, 1 / 8] },
};

/** Dormand & Prince 1980; the last row is the result, and its slope the first of the next step. */
const dopri5: Tableau = {
  nodes: [0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1],
  rows: [
    [],
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
  ],
  result: [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
};
/** Weights of the difference to the embedded method of order four, with Shampine's coefficients. */
const dopri5Error = [35 / 384 - 1951 / 21600, 0, 500 / 1113 - 22642 / 50085, 125 / 192 - 451 / 720, -2187 / 6784 + 12231 / 42400, 11 / 84 - 649 / 6300, -1 / 60];
/** Weights of the state in the middle of a step (Shampine 1986). */
const dopri5Middle = [6025192743 / 30085553152 / 2, 0, 51252292925 / 65400821598 / 2, -2691868925 / 45128329728 / 2, 187940372067 / 1594534317056 / 2, -1776094331 / 19743644256 / 2, 11237099 / 235043384 / 2];

/**
 * Solves dy/dt = f(t, y) from `times[0]` on, and yields the state at every later time. Times may fall. Fixed-step methods
 * make one step from each time to the next and read nothing back from the device; `dopri5` reads one number a step, the
 * error that decides its size. Upstream: torchdiffeq's `odeint`.
 *
 * @param y0 borrowed
 * @yields the state at `times[1]`, `times[2]`, …
 * @throws ArgumentError where the method is unknown, or a tolerance is not positive
 */
export async function* integrate(derivative: Derivative, y0: OdeState, times: Float64Array, options: IntegrateOptions): AsyncGenerator<OdePoint, void, void> {
  const { method, absoluteTolerance = 1e-6, relativeTolerance = 1e-3 } = options;
  if (method !== 'dopri5' && !Object.hasOwn(tableaus, method)) throw new ArgumentError('method', method, `one of ${[...Object.keys(tableaus), 'dopri5'].join(', ')}`);
  for (const [name, tolerance] of [['absoluteTolerance', absoluteTolerance], ['relativeTolerance', relativeTolerance]] as const) {
    if (!(tolerance > 0 && tolerance < 1)) throw new ArgumentError(name, tolerance, 'a number in (0, 1), such as 1e-5');
  }
  const falling = times[0]! > times.at(-1)!;
  const sign = falling ? -1 : 1;
  let evaluations = 0;
  const f: Derivative = async (t, y) => {
    evaluations += 1;
    const slopes = await derivative(sign * t, y);
    if (!falling) return slopes;
    const turned = tf.tidy(() => slopes.map((s) => tf.neg(s)));
    tf.dispose(slopes);
    return turned;
  };
  const grid = falling ? times.map((t) => -t) : times;
  const points = method === 'dopri5' ? adaptive(f, y0, grid, absoluteTolerance, relativeTolerance, options) : fixed(f, y0, grid, tableaus[method], options);
  let index = 0;
  for await (const y of points) yield { index: ++index, t: times[index]!, y, evaluations };
}

/** y + Σ weightᵢ·slopeᵢ, without the terms of weight 0. Inside a tidy. */
function along(y: OdeState, slopes: readonly tf.Tensor[][], weights: readonly number[]): tf.Tensor[] {
  return y.map((part, p) => {
    let sum = part;
    for (const [i, w] of weights.entries()) if (w !== 0) sum = tf.add(sum, tf.mul(slopes[i]![p]!, w));
    return sum === part ? tf.clone(part) : sum;
  });
}

/** Slopes of all stages of a step, and the state of the last one; all new. `first` where it is known, borrowed. */
async function stages(f: Derivative, { nodes, rows }: Tableau, y: OdeState, t: number, dt: number, end: number, first?: tf.Tensor[]): Promise<{ slopes: tf.Tensor[][]; last: tf.Tensor[] }> {
  const slopes: tf.Tensor[][] = [];
  let at = y.map((part) => tf.clone(part));
  try {
    for (const [i, node] of nodes.entries()) {
      if (i > 0) {
        const next = tf.tidy(() => along(y, slopes, rows[i]!.map((w) => w * dt)));
        tf.dispose(at);
        at = next;
      }
      slopes.push(i === 0 && first !== undefined ? first.map((part) => tf.clone(part)) : await f(node === 1 ? end : t + node * dt, at));
    }
  } catch (error) {
    tf.dispose([slopes, at]);
    throw error;
  }
  return { slopes, last: at };
}

async function* fixed(f: Derivative, y0: OdeState, grid: Float64Array, tableau: Tableau, { task, signal }: IntegrateOptions): AsyncGenerator<tf.Tensor[], void, void> {
  let y = y0.map((part) => tf.clone(part));
  let handedOver = false;
  try {
    for (let i = 1; i < grid.length; i++) {
      throwIfCancelled(signal, task);
      const [from, to] = [grid[i - 1]!, grid[i]!];
      const dt = to - from;
      const { slopes, last } = await stages(f, tableau, y, from, dt, to);
      const next = tf.tidy(() => along(y, slopes, tableau.result.map((w) => w * dt)));
      tf.dispose([y, slopes, last]);
      y = next;
      handedOver = i === grid.length - 1;
      yield y;
      // timers and input get their turn
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  } finally {
    if (!handedOver) tf.dispose(y);
  }
}

/** Steps beyond this are taken for a problem that does not end. */
const MOST_STEPS = 100_000;

async function* adaptive(f: Derivative, y0: OdeState, grid: Float64Array, absolute: number, relative: number, { task, signal, stopAtEnd = false }: IntegrateOptions): AsyncGenerator<tf.Tensor[], void, void> {
  let y = y0.map((part) => tf.clone(part));
  let slope: tf.Tensor[] = [];
  let given: tf.Tensor[] = [];
  let handedOver = false;
  try {
    let t = grid[0]!;
    slope = await f(t, y);
    let dt = await firstStep(f, y, slope, t, absolute, relative);
    let next = 1;
    for (let count = 0; next < grid.length; count++) {
      throwIfCancelled(signal, task);
      if (stopAtEnd) dt = Math.min(dt, grid.at(-1)! - t);
      const end = stopAtEnd && t + dt >= grid.at(-1)! ? grid.at(-1)! : t + dt;
      if (!(end > t) || count >= MOST_STEPS) throw new TinyFusionError('NUMERIC', `${task}: the solver needs ever smaller steps at t = ${Math.abs(t)} (${count} so far, the last of ${dt}); loosen the tolerances, or use a method of fixed steps`);
      const step = await stages(f, dopri5, y, t, dt, end, slope);
      const ratio = await read(tf.tidy(() => {
        const error = step.slopes[0]!.map((_, p) => weighted(step.slopes, p, dopri5Error.map((w) => w * dt)));
        return errorRatio(error, y, step.last, absolute, relative);
      }));
      if (!Number.isFinite(ratio)) {
        tf.dispose([step.last, step.slopes]);
        // steps may reach beyond the last time, where the model may make no sense
        if (end > grid.at(-1)!) {
          dt = grid.at(-1)! - t;
          continue;
        }
        throw new TinyFusionError('NUMERIC', `${task}: the state is not finite at t = ${Math.abs(t)}; check the model's weights and the interval`);
      }
      const accepted = ratio <= 1;
      if (accepted) {
        try {
          for (; next < grid.length && grid[next]! <= end; next++) {
            tf.dispose(given);
            const fraction = (grid[next]! - t) / dt;
            given = tf.tidy(() => interpolate(y, step.last, step.slopes, dt, fraction));
            handedOver = next === grid.length - 1;
            yield given;
          }
        } finally {
          tf.dispose([y, slope, step.slopes.slice(0, -1)]);
          y = step.last;
          slope = step.slopes.at(-1)!;
        }
        t = end;
      } else tf.dispose([step.last, step.slopes]);
      // a step that failed never grows, one that passed never shrinks below itself
      const factor = ratio === 0 ? 10 : Math.min(10, Math.max(0.9 / ratio ** (1 / 5), ratio < 1 ? 1 : 0.2));
      dt *= factor;
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  } finally {
    tf.dispose([y, slope]);
    if (!handedOver) tf.dispose(given);
  }
}

/** A number from the device, which is freed there. */
async function read(scalar: tf.Scalar): Promise<number> {
  const [value] = await scalar.data();
  scalar.dispose();
  return value!;
}

/** Σ weightᵢ·slopeᵢ of one part. Inside a tidy. */
function weighted(slopes: readonly tf.Tensor[][], part: number, weights: readonly number[]): tf.Tensor {
  return tf.addN(weights.flatMap((w, i) => (w === 0 ? [] : [tf.mul(slopes[i]![part]!, w)])));
}

/** Root mean square of a tensor. */
const rms = (x: tf.Tensor): tf.Scalar => tf.sqrt(tf.mean(tf.square(x))) as tf.Scalar;

/** The largest part's root mean square of error over tolerance. */
function errorRatio(error: OdeState, y0: OdeState, y1: OdeState, absolute: number, relative: number): tf.Scalar {
  const ratios = error.map((e, p) => rms(tf.div(e, tf.add(absolute, tf.mul(relative, tf.maximum(tf.abs(y0[p]!), tf.abs(y1[p]!)))))));
  return tf.max(tf.stack(ratios)) as tf.Scalar;
}

/** The first step's size, by Hairer, Nørsett & Wanner, section II.4. */
async function firstStep(f: Derivative, y: OdeState, slope: OdeState, t: number, absolute: number, relative: number): Promise<number> {
  const order = 4;
  const scaled = (parts: OdeState): tf.Scalar => tf.tidy(() => tf.max(tf.stack(parts.map((part, p) => rms(tf.div(part, tf.add(absolute, tf.mul(relative, tf.abs(y[p]!)))))))) as tf.Scalar);
  const d0 = await read(scaled(y));
  const d1 = await read(scaled(slope));
  const h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : (0.01 * d0) / d1;
  const ahead = tf.tidy(() => along(y, [slope as tf.Tensor[]], [h0]));
  let after: tf.Tensor[];
  try {
    after = await f(t + h0, ahead);
  } finally {
    tf.dispose(ahead);
  }
  const change = tf.tidy(() => scaled(after.map((part, p) => tf.sub(part, slope[p]!))));
  tf.dispose(after);
  const d2 = (await read(change)) / h0;
  const h1 = d1 <= 1e-15 && d2 <= 1e-15 ? Math.max(1e-6, h0 * 1e-3) : (0.01 / Math.max(d1, d2)) ** (1 / (order + 1));
  return Math.min(100 * h0, h1);
}

/** The state at a fraction of a step, by the polynomial of order four through both ends, their slopes and the middle. */
function interpolate(y0: OdeState, y1: OdeState, slopes: readonly tf.Tensor[][], dt: number, x: number): tf.Tensor[] {
  const middles = along(y0, slopes, dopri5Middle.map((w) => w * dt));
  const [x2, x3, x4] = [x ** 2, x ** 3, x ** 4];
  return y0.map((start, p) => {
    const [end, middle, first, last] = [y1[p]!, middles[p]!, slopes[0]![p]!, slopes.at(-1)![p]!];
    return tf.addN([
      tf.mul(start, 1 - 11 * x2 + 18 * x3 - 8 * x4),
      tf.mul(end, -5 * x2 + 14 * x3 - 8 * x4),
      tf.mul(middle, 16 * x2 - 32 * x3 + 16 * x4),
      tf.mul(first, dt * (x - 4 * x2 + 5 * x3 - 2 * x4)),
      tf.mul(last, dt * (x2 - 3 * x3 + 2 * x4)),
    ]);
  });
}

/** `count + 1` evenly spaced times, rounded as `torch.linspace` rounds. */
export function evenTimes(start: number, end: number, count: number): Float64Array {
  const [from, to] = [Math.fround(start), Math.fround(end)];
  const step = Math.fround(Math.fround(to - from) / count);
  const half = Math.floor((count + 1) / 2);
  return Float64Array.from({ length: count + 1 }, (_, i) => (i < half ? Math.fround(from + Math.fround(step * i)) : Math.fround(to - Math.fround(step * (count - i)))));
}

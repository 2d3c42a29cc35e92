import * as tf from '@tensorflow/tfjs-core';
import type { AsyncDenoiser, GaussianDiffusion } from './gaussian.js';
import { type Sampling, walk } from './sampling.js';
import { type SolverOptions, type SolverPoint, solverGrid, straightStep } from './solver-grid.js';

/** What a step leaves for the next one. */
interface Past {
  point: SolverPoint;
  /** Data at that point, corrected. */
  x: tf.Tensor;
  /** x₀ predicted there. */
  xStart: tf.Tensor;
  /** (xStart there − xStart before)/(λ there − λ before). */
  slope: tf.Tensor | undefined;
  /** λ there − λ before. */
  width: number;
}

/** The same data, past the end of the tidy. */
const hold = (tensor: tf.Tensor) => tf.keep(tf.clone(tensor));

/**
 * UniPC (Zhao et al. 2023) of order 2 on the predicted x₀, with B(h) = e^(−h) − 1: each step extrapolates like
 * DPM-Solver++(2M), and corrects itself once the model has been run at the new point, which the next step needs anyway.
 * Third-order accurate for one run of the model a step.
 *
 * @param diffusion the process with all its steps; the solver chooses among them
 */
export function unipc(diffusion: GaussianDiffusion, denoiser: AsyncDenoiser, options: SolverOptions): Sampling {
  const { noise, clipDenoised = false, signal } = options;
  const points = solverGrid(diffusion, options);
  const n = noise.shape[0]!;
  let past: Past | undefined;
  let i = 0;
  const forget = () => tf.dispose([past?.x, past?.xStart, past?.slope].filter((held) => held !== undefined));
  const move = (predicted: tf.Tensor, t: number) =>
    diffusion.predicting(denoiser, predicted, new Int32Array(n).fill(t), { clipDenoised }, ({ xStart }) => {
      const [now, next] = [points[i]!, points[i + 1]!];
      const x = past === undefined ? predicted : corrected(past, xStart, now);
      const width = past === undefined ? 0 : now.lambda - past.point.lambda;
      const slope = past === undefined ? undefined : tf.div(tf.sub(xStart, past.xStart), width);
      forget();
      past = { point: now, x: hold(x), xStart: hold(xStart), slope: slope === undefined ? undefined : hold(slope), width };
      i += 1;
      const target = slope === undefined || next.sigma === 0 ? xStart : tf.add(xStart, tf.mul(slope, (next.lambda - now.lambda) / 2));
      return { x: straightStep(x, target, now, next), xStart };
    });
  return (async function* () {
    try {
      yield* walk('unipc', points.slice(0, -1).map(({ t }) => t), points.length - 1, noise, signal, move);
    } finally {
      forget();
    }
  })();
}

/**
 * The last step again, knowing x₀ at its end: with u = (λ − λ₀)/h from 0 to 1 over the step, x₀(u) is the parabola
 * through the two ends and the point before, or the line of half its weight on the first step, and
 * ∫ e^(h(u − 1))·uᵏ·h du gives what each power adds.
 */
function corrected({ point, x, xStart, slope, width }: Past, end: tf.Tensor, now: SolverPoint): tf.Tensor {
  const h = now.lambda - point.lambda;
  const base = straightStep(x, xStart, point, now);
  const rise = tf.sub(end, xStart);
  const whole = -Math.expm1(-h);
  if (slope === undefined) return tf.add(base, tf.mul(rise, (now.alpha * whole) / 2));
  const linear = 1 - whole / h;
  const square = 1 - (2 * linear) / h;
  // m(u) = m(0) + a·u + b·u² rises by a + b to the end and by (a − b·r)·r from the point before, at u = −r
  const r = width / h;
  const onRise = (r * linear + square) / (1 + r);
  const onSlope = (linear - square) / (1 + r);
  return tf.add(base, tf.mul(tf.add(tf.mul(rise, onRise), tf.mul(slope, onSlope * h)), now.alpha));
}

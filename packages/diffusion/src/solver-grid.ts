import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { GaussianDiffusion } from './gaussian.js';
import type { SamplingOptions } from './sampling.js';

/** Options of the solvers that choose their own steps. */
export interface SolverOptions extends Pick<SamplingOptions, 'noise' | 'clipDenoised' | 'signal'> {
  /** Runs of the model. Default 20. */
  steps?: number;
  /**
   * `'log-snr'`: noise levels evenly spaced in λ = ln(α/σ), the solvers' own variable, down to the process's first step;
   * `'time'`: evenly spaced steps. Both go on to clean data from the last of them. Default `'log-snr'`: on
   * Gaussian data of deviation 0.02 to 0.5, whose flow is known exactly, errors after 10 to 20 steps are 3 to 200 times
   * smaller than with `'time'`; for data as wide as the noise (deviation 1) `'time'` is as good at 10 and better at 20.
   */
  spacing?: 'log-snr' | 'time';
}

/** A noise level of the probability flow, x = α·x₀ + σ·ε. */
export interface SolverPoint {
  /** Index into the process; −1 for clean data. */
  t: number;
  alpha: number;
  sigma: number;
  /** ln(α/σ), half of the log signal-to-noise ratio; infinite for clean data. */
  lambda: number;
}

/**
 * The noise levels that a solver goes through, and then clean data.
 *
 * @returns `steps + 1` points
 * @throws ArgumentError where the process does not have that many steps
 */
export function solverGrid(diffusion: GaussianDiffusion, { steps = 20, spacing = 'log-snr' }: Pick<SolverOptions, 'steps' | 'spacing'>): SolverPoint[] {
  const last = diffusion.steps - 1;
  if (!Number.isInteger(steps) || steps < 1 || steps > last) throw new ArgumentError('SolverOptions.steps', steps, `an integer from 1 to ${last}, one less than the process has; solvers choose among its steps, so respacing is not needed`);
  if (spacing !== 'log-snr' && spacing !== 'time') throw new ArgumentError('SolverOptions.spacing', spacing, "'log-snr' or 'time'");
  const kept = diffusion.tables.alphasCumprod;
  const chosen = spacing === 'time' ? Array.from({ length: steps }, (_, i) => Math.round(last - (last * i) / steps)) : evenInLambda(Array.from(kept, lambdaOf), steps);
  const points = chosen.map((t): SolverPoint => ({ t, alpha: Math.sqrt(kept[t]!), sigma: Math.sqrt(1 - kept[t]!), lambda: lambdaOf(kept[t]!) }));
  return [...points, { t: -1, alpha: 1, sigma: 0, lambda: Infinity }];
}

const lambdaOf = (kept: number) => 0.5 * Math.log(kept / (1 - kept));

/** `count` different indices, descending from the last one, nearest to even spacing of the (falling) `lambdas`. */
function evenInLambda(lambdas: readonly number[], count: number): number[] {
  const last = lambdas.length - 1;
  const chosen: number[] = [];
  let t = 0;
  for (let k = 0; k < count; k++) {
    const wanted = count === 1 ? lambdas[last]! : lambdas[0]! + ((lambdas[last]! - lambdas[0]!) * k) / (count - 1);
    while (t < last && Math.abs(lambdas[t + 1]! - wanted) <= Math.abs(lambdas[t]! - wanted)) t++;
    // near clean data λ falls faster than one step of the process, so the nearest may be taken already
    const free = k === 0 ? 0 : chosen[k - 1]! + 1;
    chosen.push(Math.min(Math.max(t, free), last - (count - 1 - k)));
  }
  return chosen.toReversed();
}

/**
 * The flow from one noise level to the next if the predicted x₀ did not change on the way:
 * (σ'/σ)·x + α'(1 − e^(−h))·x₀, h = λ' − λ. Inside a tidy.
 */
export function straightStep(x: tf.Tensor, xStart: tf.Tensor, from: SolverPoint, to: SolverPoint): tf.Tensor {
  const towards = tf.mul(xStart, -to.alpha * Math.expm1(from.lambda - to.lambda));
  return to.sigma === 0 ? towards : tf.add(tf.mul(x, to.sigma / from.sigma), towards);
}

import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { AsyncDenoiser, GaussianDiffusion } from './gaussian.js';
import { type Sampling, walk } from './sampling.js';
import { type SolverOptions, solverGrid, straightStep } from './solver-grid.js';
import { updated } from './updating.js';

/** Options of {@link dpmSolver}. */
export interface DpmSolverOptions extends SolverOptions {
  /** 2 also uses the x₀ predicted one step before; 1 is DDIM with eta 0. Default 2. */
  order?: 1 | 2;
}

/**
 * DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): the probability flow solved in λ = ln(α/σ), with the predicted x₀
 * extrapolated from the last two steps. Deterministic, one run of the model a step. The first step, with nothing before
 * it, and the last, to clean data, are of first order.
 *
 * @param diffusion the process with all its steps; the solver chooses among them
 */
export function dpmSolver(diffusion: GaussianDiffusion, denoiser: AsyncDenoiser, options: DpmSolverOptions): Sampling {
  const { noise, order = 2, clipDenoised = false, signal } = options;
  if (order !== 1 && order !== 2) throw new ArgumentError('DpmSolverOptions.order', order, '1 or 2');
  const points = solverGrid(diffusion, options);
  const n = noise.shape[0]!;
  let before: tf.Tensor | undefined;
  let i = 0;
  const move = (x: tf.Tensor, t: number) => {
    const [now, next] = [points[i]!, points[i + 1]!];
    // x₀ goes on by half of what it moved by in the last step
    const ahead = before !== undefined && order === 2 && next.sigma > 0 ? (next.lambda - now.lambda) / (now.lambda - points[i - 1]!.lambda) / 2 : 0;
    const towards = -next.alpha * Math.expm1(now.lambda - next.lambda);
    const taken = updated(diffusion, denoiser, x, t, { clipDenoised, before, next: [next.sigma / now.sigma, (1 + ahead) * towards, -ahead * towards] });
    if (taken !== undefined) {
      before?.dispose();
      before = tf.clone(taken.xStart);
      i += 1;
      return taken;
    }
    return diffusion.predicting(denoiser, x, new Int32Array(n).fill(t), { clipDenoised }, ({ xStart }) => {
      const target = ahead === 0 ? xStart : tf.add(xStart, tf.mul(tf.sub(xStart, before!), ahead));
      const out = { x: straightStep(x, target, now, next), xStart };
      before?.dispose();
      before = tf.keep(tf.clone(xStart));
      i += 1;
      return out;
    });
  };
  return (async function* () {
    try {
      yield* walk('dpmSolver', points.slice(0, -1).map(({ t }) => t), points.length - 1, noise, signal, move);
    } finally {
      before?.dispose();
    }
  })();
}

import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { AsyncDenoiser, GaussianDiffusion } from './gaussian.js';
import { type Sampling, walk } from './sampling.js';
import { type SolverOptions, solverGrid, straightStep } from './solver-grid.js';

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
  const move = (x: tf.Tensor, t: number) =>
    diffusion.predicting(denoiser, x, new Int32Array(n).fill(t), { clipDenoised }, ({ xStart }) => {
      const [now, next] = [points[i]!, points[i + 1]!];
      let target = xStart;
      if (before !== undefined && order === 2 && next.sigma > 0) {
        const ratio = (next.lambda - now.lambda) / (now.lambda - points[i - 1]!.lambda);
        target = tf.add(xStart, tf.mul(tf.sub(xStart, before), ratio / 2));
      }
      const out = { x: straightStep(x, target, now, next), xStart };
      before?.dispose();
      before = tf.keep(tf.clone(xStart));
      i += 1;
      return out;
    });
  return (async function* () {
    try {
      yield* walk('dpmSolver', points.slice(0, -1).map(({ t }) => t), points.length - 1, noise, signal, move);
    } finally {
      before?.dispose();
    }
  })();
}

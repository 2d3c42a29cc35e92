import { ArgumentError } from '@tinyfusion/core';
import type { BlockHook } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { cholesky, choleskySolve } from './cholesky.js';
import type { Interval } from './intervals.js';
import { LinearReplacement, assign } from './linear-replacement.js';

/** Options of {@link ReplacementFit}. */
export interface ReplacementFitOptions {
  /** λ: each feature's variance is taken (1 + λ) times, so that the fit does not depend on the features' scales. Default 1e-6. */
  ridge?: number;
}

/** A replacement and how good it is. */
export interface FittedReplacement {
  /** Belongs to the caller. */
  replacement: LinearReplacement;
  /** ‖y − ŷ‖ / ‖y − x‖ over the calibration tokens: 0 is exact, 1 no better than leaving the run out. */
  error: number;
  /** The ridge that was used: larger than asked for where the matrix was not positive definite. */
  ridge: number;
}

/** Sums over calibration tokens of one run, with Δ = y − x; x and Δ less a shift. */
interface Moments {
  features: number;
  tokens: number;
  /** Shift of x and of Δ: their means in the first batch. */
  shift: [tf.Tensor1D, tf.Tensor1D];
  /** Σ x xᵀ and Σ x Δᵀ, `[D, D]`. */
  squares: Float64Array;
  products: Float64Array;
  /** Σ x, Σ Δ, Σ Δ² by feature, and Σ Δ² without the shift. */
  x: Float64Array;
  delta: Float64Array;
  deltaSquares: Float64Array;
  skipped: number;
}

/** What one forward pass adds, still on the device: `[xᵀx | xᵀΔ]`, and rows of sums. */
interface Pending {
  run: number;
  tokens: number;
  products: tf.Tensor2D;
  sums: tf.Tensor2D;
}

/**
 * Fits a linear layer in the place of each removed run of blocks, in closed form (as FastFLUX replaces blocks by linear
 * layers): the W and b that minimise Σ ‖y − (x + x Wᵀ + b)‖² plus a ridge over calibration tokens, x being what goes into
 * the run and y what comes out of it in the whole model. Tokens are not held: products are summed batch by batch in
 * float64, and a Cholesky factorisation solves the normal equations.
 *
 * Use: run the model with `hook`, `await endBatch()` after each forward pass, then `solve()`.
 */
export class ReplacementFit {
  readonly #runs: readonly Interval[];
  readonly #ridge: number;
  readonly #moments: (Moments | undefined)[];
  #inputs: (tf.Tensor3D | undefined)[];
  #pending: Pending[] = [];

  /** @param runs runs of blocks `[start, end)` that do not overlap, e.g. of `removedRuns` */
  constructor(runs: readonly Interval[], { ridge = 1e-6 }: ReplacementFitOptions = {}) {
    const sorted = runs.toSorted((a, b) => a[0] - b[0]);
    if (runs.length === 0 || !sorted.every(([start, end], i) => Number.isInteger(start) && Number.isInteger(end) && start >= (i === 0 ? 0 : sorted[i - 1]![1]) && end > start)) throw new ArgumentError('ReplacementFit: runs', runs, 'runs of blocks [start, end) that do not overlap');
    if (!(ridge >= 0) || !Number.isFinite(ridge)) throw new ArgumentError('ReplacementFit: ridge', ridge, 'a finite number from 0');
    this.#runs = sorted;
    this.#ridge = ridge;
    this.#moments = sorted.map(() => undefined);
    this.#inputs = sorted.map(() => undefined);
  }

  /** Measures while the whole model runs. */
  readonly hook: BlockHook = (site, x, run) => {
    const i = this.#runs.findIndex(([start, end]) => site.index >= start && site.index < end);
    if (i < 0) return run(x);
    const [start, end] = this.#runs[i]!;
    if (end > site.depth) throw new ArgumentError('ReplacementFit: runs', [start, end], `blocks of the model's ${site.depth}`);
    if (site.index === start) {
      this.#inputs[i]?.dispose();
      this.#inputs[i] = tf.keep(tf.clone(x));
    }
    const y = run(x);
    const input = this.#inputs[i];
    if (site.index === end - 1 && input !== undefined) {
      this.#pending.push(this.#measure(i, input, y));
      input.dispose();
      this.#inputs[i] = undefined;
    }
    return y;
  };

  /** Adds what the forward passes since the last call have measured. */
  async endBatch(): Promise<void> {
    const pending = this.#pending;
    this.#pending = [];
    try {
      for (const { run, tokens, products, sums } of pending) {
        const moments = this.#moments[run]!;
        const { features: d } = moments;
        const [both, rows] = await Promise.all([products.data(), sums.data()]);
        for (let i = 0; i < d; i++) {
          for (let j = 0; j < d; j++) {
            moments.squares[i * d + j]! += both[2 * i * d + j]!;
            moments.products[i * d + j]! += both[(2 * i + 1) * d + j]!;
          }
          moments.x[i]! += rows[i]!;
          moments.delta[i]! += rows[d + i]!;
          moments.deltaSquares[i]! += rows[2 * d + i]!;
          moments.skipped += rows[3 * d + i]!;
        }
        moments.tokens += tokens;
      }
    } finally {
      tf.dispose(pending.flatMap(({ products, sums }) => [products, sums]));
    }
  }

  /**
   * One replacement a run, in order, and an end to the measurement. Takes D³ operations, a few seconds a run at DiT-XL's D = 1152.
   * @throws ArgumentError where a run was never measured, or what was measured is not finite
   */
  async solve(): Promise<FittedReplacement[]> {
    await this.endBatch();
    const out: FittedReplacement[] = [];
    try {
      for (const [i, moments] of this.#moments.entries()) {
        if (moments === undefined) throw new ArgumentError('ReplacementFit.solve: batches', 0, `a forward pass of the whole model before it, with blocks ${this.#runs[i]!.join(' to ')}`);
        out.push(await this.#solveRun(this.#runs[i]!, moments));
      }
    } catch (error) {
      for (const { replacement } of out) replacement.dispose();
      throw error;
    }
    this.dispose();
    return out;
  }

  dispose(): void {
    tf.dispose([...this.#inputs.filter((x) => x !== undefined), ...this.#pending.flatMap(({ products, sums }) => [products, sums]), ...this.#moments.flatMap((m) => m?.shift ?? [])]);
    this.#inputs = this.#inputs.map(() => undefined);
    this.#pending = [];
    this.#moments.fill(undefined);
  }

  #measure(run: number, x: tf.Tensor3D, y: tf.Tensor3D): Pending {
    const d = x.shape[2];
    const tokens = x.shape[0] * x.shape[1];
    const [products, sums] = tf.tidy(() => {
      const rows = tf.reshape(x, [tokens, d]) as tf.Tensor2D;
      const delta = tf.sub(tf.reshape(y, [tokens, d]), rows) as tf.Tensor2D;
      const moments = (this.#moments[run] ??= {
        features: d,
        tokens: 0,
        // without the means float32 keeps the digits that matter
        shift: [tf.keep(tf.mean(rows, 0)), tf.keep(tf.mean(delta, 0))] as [tf.Tensor1D, tf.Tensor1D],
        squares: new Float64Array(d * d),
        products: new Float64Array(d * d),
        x: new Float64Array(d),
        delta: new Float64Array(d),
        deltaSquares: new Float64Array(d),
        skipped: 0,
      });
      const [a, b] = [tf.sub(rows, moments.shift[0]), tf.sub(delta, moments.shift[1])] as [tf.Tensor2D, tf.Tensor2D];
      const both = tf.matMul(a, tf.concat([a, b], 1), true, false);
      const rowsOfSums = tf.stack([tf.sum(a, 0), tf.sum(b, 0), tf.sum(tf.square(b), 0), tf.sum(tf.square(delta), 0)]) as tf.Tensor2D;
      return [tf.keep(both), tf.keep(rowsOfSums)] as [tf.Tensor2D, tf.Tensor2D];
    });
    return { run, tokens, products, sums };
  }

  async #solveRun(run: Interval, { features: d, tokens, shift, squares, products, x, delta, deltaSquares, skipped }: Moments): Promise<FittedReplacement> {
    if (!Number.isFinite(skipped) || !squares.every(Number.isFinite) || !products.every(Number.isFinite)) throw new ArgumentError(`blocks ${run.join(' to ')} in calibration`, 'not finite', 'finite hidden states');
    // about the means of all batches
    const a = new Float64Array(d * d);
    const b = new Float64Array(d * d);
    for (let i = 0; i < d; i++) {
      for (let j = 0; j < d; j++) {
        a[i * d + j] = squares[i * d + j]! - (x[i]! * x[j]!) / tokens;
        b[i * d + j] = products[i * d + j]! - (x[i]! * delta[j]!) / tokens;
      }
    }
    const diagonal = Float64Array.from({ length: d }, (_, i) => a[i * d + i]!);
    // a feature that does not vary gets a weight of 0, not a division by it
    const floor = Math.max(1e-12 * diagonal.reduce((most, v) => Math.max(most, v), 0), Number.MIN_VALUE * 2 ** 60);
    let ridge = this.#ridge;
    let factor: Float64Array | undefined;
    for (; ; ridge = Math.max(10 * ridge, 1e-9)) {
      const sum = Float64Array.from(a);
      for (let i = 0; i < d; i++) sum[i * d + i] = Math.max(diagonal[i]!, floor) * (1 + ridge);
      factor = cholesky(sum, d);
      if (factor !== undefined || ridge > 1) break;
    }
    if (factor === undefined) throw new ArgumentError(`tokens seen by blocks ${run.join(' to ')}`, tokens, `more of them: ${d} features cannot be fitted`);
    const w = choleskySolve(factor, b, d, d); // [in, out]
    const weight = new Float32Array(d * d);
    const bias = new Float32Array(d);
    const [xShift, deltaShift] = await Promise.all(shift.map((s) => s.data()));
    // Σ‖b − wᵀa‖² by the normal equations: wᵀ(A + R)w = wᵀB, with A less its own diagonal's share of the ridge
    let rest = 0;
    for (let j = 0; j < d; j++) {
      let mean = deltaShift![j]! + delta[j]! / tokens;
      let explained = 0;
      for (let i = 0; i < d; i++) {
        const v = w[i * d + j]!;
        weight[j * d + i] = v;
        mean -= v * (xShift![i]! + x[i]! / tokens);
        const added = Math.max(diagonal[i]!, floor) * (1 + ridge) - diagonal[i]!;
        explained += v * (b[i * d + j]! + added * v);
      }
      bias[j] = mean;
      rest += deltaSquares[j]! - delta[j]! ** 2 / tokens - explained;
    }
    const replacement = new LinearReplacement(run, d);
    assign(replacement, weight, bias);
    return { replacement, error: skipped === 0 ? 0 : Math.sqrt(Math.max(0, rest) / skipped), ridge };
  }
}

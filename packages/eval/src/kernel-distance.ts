import { ArgumentError, type Rng } from '@tinyfusion/core';

/** Options of {@link kernelDistance}. */
export interface KernelDistanceOptions {
  /** Length of a row of features. */
  dimension: number;
  /** Number of subsets. Default 100. */
  subsets?: number;
  /** Rows of each subset. Default 1000. */
  subsetSize?: number;
  /** Draws the subsets. */
  rng?: Rng;
  /** Replaces `rng`: rows of each subset, generated and real. */
  indices?: readonly { generated: ArrayLike<number>; real: ArrayLike<number> }[];
}

/** Mean and standard deviation (dividing by their number) of the squared MMD over subsets. */
export interface KernelDistance {
  mean: number;
  std: number;
}

/**
 * Kernel Inception distance (Bińkowski et al. 2018): the squared maximum mean discrepancy under (xᵀy/D + 1)³, without
 * the diagonals within each set.
 */
export function kernelDistance(generated: ArrayLike<number>, real: ArrayLike<number>, { dimension, subsets = 100, subsetSize = 1000, rng, indices }: KernelDistanceOptions): KernelDistance {
  const [n, m] = [generated.length / dimension, real.length / dimension];
  const size = indices === undefined ? subsetSize : indices[0]!.generated.length;
  if (size > Math.min(n, m) || size < 2) throw new ArgumentError('KernelDistanceOptions.subsetSize', size, `an integer from 2 to ${Math.min(n, m)}, the smaller set`);
  const drawn =
    indices ??
    Array.from({ length: subsets }, () => {
      if (rng === undefined) throw new ArgumentError('KernelDistanceOptions.rng', rng, 'an Rng that draws the subsets, or indices');
      return { generated: rng.permutation(n).subarray(0, size), real: rng.permutation(m).subarray(0, size) };
    });
  const values = drawn.map(({ generated: a, real: b }) => {
    const within = (set: ArrayLike<number>, rows: ArrayLike<number>): number => {
      let sum = 0;
      for (let i = 0; i < rows.length; i++) for (let j = i + 1; j < rows.length; j++) sum += 2 * kernel(set, rows[i]!, set, rows[j]!, dimension);
      return sum / (rows.length * (rows.length - 1));
    };
    let cross = 0;
    for (let i = 0; i < a.length; i++) for (let j = 0; j < b.length; j++) cross += kernel(generated, a[i]!, real, b[j]!, dimension);
    return within(generated, a) + within(real, b) - (2 * cross) / (a.length * b.length);
  });
  const mean = values.reduce((x, y) => x + y, 0) / values.length;
  return { mean, std: Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length) };
}

function kernel(x: ArrayLike<number>, i: number, y: ArrayLike<number>, j: number, d: number): number {
  let dot = 0;
  for (let k = 0; k < d; k++) dot += x[i * d + k]! * y[j * d + k]!;
  return (dot / d + 1) ** 3;
}

import { ArgumentError } from '@tinyfusion/core';

/** `'plain'`: HSIC as first defined, too large for few rows. `'unbiased'`: its U-statistic, which can be averaged over batches. */
export type HsicEstimator = 'plain' | 'unbiased';

/**
 * The centred part of a Gram matrix, so that HSIC is a scaled sum of products. Plain: H K H with H = 1 − 1/n.
 * Unbiased: K without its diagonal, U-centred (Székely & Rizzo 2014), which makes the sum Song et al.'s (2012) HSIC₁.
 *
 * @param gram `[n, n]`, symmetric, row by row
 */
export function centredGram(gram: ArrayLike<number>, n: number, estimator: HsicEstimator): Float64Array<ArrayBuffer> {
  if (gram.length !== n * n) throw new ArgumentError('centredGram: gram', gram.length, `${n}² values`);
  const least = estimator === 'unbiased' ? 4 : 2;
  if (n < least) throw new ArgumentError('rows to compare', n, `at least ${least} for the ${estimator} estimator; use larger batches or tokens as rows`);
  const unbiased = estimator === 'unbiased';
  const rows = new Float64Array(n);
  let total = 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) if (!unbiased || i !== j) rows[i]! += gram[i * n + j]!;
    total += rows[i]!;
  }
  const [perRow, perAll] = unbiased ? [1 / (n - 2), 1 / ((n - 1) * (n - 2))] : [1 / n, 1 / (n * n)];
  const centred = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) if (!unbiased || i !== j) centred[i * n + j] = gram[i * n + j]! - (rows[i]! + rows[j]!) * perRow + total * perAll;
  }
  return centred;
}

/** HSIC of two centred Gram matrices of n rows. */
export function hsic(a: Float64Array, b: Float64Array, n: number, estimator: HsicEstimator): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum / (estimator === 'unbiased' ? n * (n - 3) : (n - 1) ** 2);
}

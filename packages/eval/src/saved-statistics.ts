import { CheckpointError } from '@tinyfusion/core';
import { type StateDict, type TensorRecord, type WritableTensor, toFloat64 } from '@tinyfusion/weights';
import type { Statistics } from './statistics.js';

/** Statistics as files keep them. */
export interface SavedStatistics {
  /** `mu` and `sigma`. */
  pooled: Statistics;
  /** `mu_s` and `sigma_s`, sFID's, which ADM's files have as well. */
  spatial?: Statistics;
}

/** Options of {@link readStatistics}. */
export interface ReadStatisticsOptions {
  /** Features that `mu` must have: 2048 for Inception's. Default: as many as there are. */
  dimension?: number;
  /** Features that `mu_s` must have where there is one: 2023 for Inception's. Default: as many as there are. */
  spatialDimension?: number;
}

/** Rounding of float32 leaves less. */
const largestAsymmetry = 1e-6;

/**
 * Reads statistics by the names that all who save them use: pytorch-fid's `.npz` and torch-fidelity's cache have `mu` and
 * `sigma`, ADM's reference batches `mu_s` and `sigma_s` as well. No such file says of how many images they are: `count` is
 * `Number.MAX_SAFE_INTEGER`, and nothing warns of too few.
 *
 * @param name what errors call the file
 * @throws CheckpointError where one of a pair is missing, sizes do not match, a value is not finite, or `sigma` is not
 * symmetric or has a negative variance
 */
export async function readStatistics(state: StateDict, name: string, { dimension, spatialDimension }: ReadStatisticsOptions = {}): Promise<SavedStatistics> {
  const { tensors } = state;
  if (!tensors.has('mu') && !tensors.has('sigma')) throw new CheckpointError(`${name} has no statistics, mu and sigma; it has: ${[...tensors.keys()].slice(0, 8).join(', ') || 'nothing'}`);
  const pooled = await readPair(state, name, 'mu', 'sigma', dimension);
  if (!tensors.has('mu_s') && !tensors.has('sigma_s')) return { pooled };
  return { pooled, spatial: await readPair(state, name, 'mu_s', 'sigma_s', spatialDimension) };
}

/**
 * Statistics as arrays for `writeNpz`, in float64: pytorch-fid's file, with `spatial` ADM's, to which `arr_0` with the
 * images may be added.
 */
export function statisticsTensors({ pooled, spatial }: SavedStatistics): [name: string, tensor: WritableTensor][] {
  return [...pair('mu', 'sigma', pooled), ...(spatial === undefined ? [] : pair('mu_s', 'sigma_s', spatial))];
}

function pair(mu: string, sigma: string, { dimension, mean, covariance }: Statistics): [string, WritableTensor][] {
  const tensor = (values: Float64Array, shape: number[]): WritableTensor => ({ dtype: 'F64', shape, bytes: new Uint8Array(values.slice().buffer) });
  return [
    [mu, tensor(mean, [dimension])],
    [sigma, tensor(covariance, [dimension, dimension])],
  ];
}

async function readPair({ tensors }: StateDict, name: string, mu: string, sigma: string, expected: number | undefined): Promise<Statistics> {
  const [meanRecord, covarianceRecord] = [recordOf(mu), recordOf(sigma)];
  const d = expected ?? meanRecord.shape[0] ?? 0;
  if (d < 1 || String(meanRecord.shape) !== String([d]) || String(covarianceRecord.shape) !== String([d, d])) {
    throw new CheckpointError(`${name}: ${mu} and ${sigma} have shapes [${meanRecord.shape.join(', ')}] and [${covarianceRecord.shape.join(', ')}], expected ${expected === undefined ? '[D] and [D, D]' : `[${d}] and [${d}, ${d}], statistics of ${d} features`}`);
  }
  const [mean, covariance] = [await toFloat64(meanRecord), await toFloat64(covarianceRecord)];
  for (const [key, values] of [[mu, mean], [sigma, covariance]] as const) {
    const at = values.findIndex((value) => !Number.isFinite(value));
    if (at >= 0) throw new CheckpointError(`${name}: ${key}, value ${at} is ${values[at]}, expected a finite number`);
  }
  checkCovariance(`${name}: ${sigma}`, covariance, d);
  return { count: Number.MAX_SAFE_INTEGER, dimension: d, mean, covariance };

  function recordOf(key: string): TensorRecord {
    const record = tensors.get(key);
    if (record === undefined) throw new CheckpointError(`${name} has ${key === mu ? sigma : mu} but no ${key}; statistics are both`);
    if (record.dtype !== 'F64' && record.dtype !== 'F32') throw new CheckpointError(`${name}: ${key} is of type ${record.dtype}, expected F64 or F32`);
    return record;
  }
}

function checkCovariance(name: string, covariance: Float64Array, d: number): void {
  let largest = 0;
  for (let i = 0; i < d; i++) {
    const variance = covariance[i * (d + 1)]!;
    if (variance < 0) throw new CheckpointError(`${name}: the variance of feature ${i} is ${variance}, expected none below 0`);
    largest = Math.max(largest, variance);
  }
  for (let i = 0; i < d; i++) {
    for (let j = 0; j < i; j++) {
      const [below, above] = [covariance[i * d + j]!, covariance[j * d + i]!];
      if (Math.abs(below - above) > largestAsymmetry * largest) throw new CheckpointError(`${name} is not symmetric: [${i}, ${j}] is ${below}, [${j}, ${i}] is ${above}`);
    }
  }
}

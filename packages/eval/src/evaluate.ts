import type { LongTaskOptions } from '@tinyfusion/core';
import type { ExtractedFeatures, FeatureNetwork } from './feature-network.js';
import { frechetDistance } from './frechet.js';
import { inceptionScore } from './inception-score.js';
import { precisionRecall } from './precision-recall.js';
import { FeatureStatistics, type Statistics } from './statistics.js';

/** The numbers of one set of generated images against real ones; plain JSON. */
export interface Evaluation {
  fid: number;
  inceptionScore: number;
  inceptionScoreStd: number;
  precision: number;
  recall: number;
  /** Generated and real images. */
  counts: { generated: number; real: number };
  network: string;
  /** What a reader should know before comparing. */
  warnings: string[];
}

/** Options of {@link evaluate}. */
export interface EvaluateOptions extends LongTaskOptions {
  /** Splits of the Inception Score. Default 10. */
  splits?: number;
  /** k of precision and recall. Default 3. */
  neighbours?: number;
  /** Images of each set that precision and recall look at, from the first. Default 10,000, as ADM. */
  precisionRecallImages?: number;
}

/** FID, IS, precision and recall of extracted features. */
export async function evaluate(network: FeatureNetwork, generated: ExtractedFeatures, real: ExtractedFeatures, { splits = 10, neighbours = 3, precisionRecallImages = 10_000, signal, onProgress }: EvaluateOptions = {}): Promise<Evaluation> {
  const { dimension, classes } = network;
  const distance = frechetDistance(statisticsOf(generated, dimension), statisticsOf(real, dimension));
  const score = classes > 0 ? inceptionScore(generated.logits, { classes, splits: Math.min(splits, generated.count) }) : { mean: Number.NaN, std: Number.NaN };
  const part = (set: ExtractedFeatures) => set.features.subarray(0, precisionRecallImages * dimension);
  const manifold = await precisionRecall(part(generated), part(real), { dimension, neighbours, signal, onProgress });
  const warnings = [...distance.warnings];
  if (!network.comparable) warnings.push(`features are those of ${network.name}: compare these numbers with each other, not with published ones`);
  return { fid: distance.distance, inceptionScore: score.mean, inceptionScoreStd: score.std, ...manifold, counts: { generated: generated.count, real: real.count }, network: network.name, warnings };
}

/** Mean and covariance of extracted features. */
export function statisticsOf({ features }: ExtractedFeatures, dimension: number): Statistics {
  const statistics = new FeatureStatistics(dimension);
  statistics.add(features);
  return statistics.finish();
}

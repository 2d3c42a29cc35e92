import { ArgumentError, type LongTaskOptions, ShapeError } from '@tinyfusion/core';
import type { ExtractedFeatures, FeatureNetwork } from './feature-network.js';
import { frechetDistance } from './frechet.js';
import { inceptionScore } from './inception-score.js';
import { precisionRecall } from './precision-recall.js';
import { FeatureStatistics, type Statistics, rowsOf } from './statistics.js';

/** The numbers of one set of generated images against real ones; plain JSON. */
export interface Evaluation {
  fid: number;
  /** NaN, which JSON writes as null, where the network does not classify. */
  inceptionScore: number;
  inceptionScoreStd: number;
  precision: number;
  recall: number;
  /** Generated and real images. */
  counts: { generated: number; real: number };
  network: string;
  /** Version of the network, where it states one. */
  networkVersion?: string;
  /** What a reader should know before comparing. */
  warnings: string[];
}

/** Options of {@link evaluate}. */
export interface EvaluateOptions extends LongTaskOptions {
  /** Splits of the Inception Score, in the order of the images; no more than there are images. Default 10. */
  splits?: number;
  /** k of precision and recall. Default 3. */
  neighbours?: number;
  /** Real images that precision and recall look at, from the first, beside all generated ones. Default 10,000: as many as ADM's reference batches hold. */
  precisionRecallImages?: number;
}

/**
 * FID, IS, precision and recall of extracted features.
 *
 * @throws ArgumentError where a value is not finite (the message says in which set, row and column), a set is too small,
 * or the two sets come from different networks; ShapeError where an image has no logits of its own
 */
export async function evaluate(network: FeatureNetwork, generated: ExtractedFeatures, real: ExtractedFeatures, { splits = 10, neighbours = 3, precisionRecallImages = 10_000, signal, onProgress }: EvaluateOptions = {}): Promise<Evaluation> {
  const { name, version, dimension, classes } = network;
  for (const [set, { provenance: from }] of [['generated', generated], ['real', real]] as const) {
    if (from.network !== name || from.version !== version) throw new ArgumentError(`evaluate: network of the ${set} features`, [from.network, from.version], `${JSON.stringify([name, version])}; extract both sets with one network`);
  }
  if (!Number.isInteger(precisionRecallImages) || precisionRecallImages < 1) throw new ArgumentError('EvaluateOptions.precisionRecallImages', precisionRecallImages, 'an integer of at least 1');
  if (classes > 0 && generated.logits.length !== generated.count * classes) throw new ShapeError('evaluate: logits of the generated images', [generated.logits.length], `${generated.count * classes} values: ${classes} classes of ${generated.count} images`);
  const distance = frechetDistance(statisticsOf(generated, dimension, 'evaluate: generated features'), statisticsOf(real, dimension, 'evaluate: real features'));
  const score = classes > 0 ? inceptionScore(generated.logits, { classes, splits: Math.min(splits, generated.count) }) : { mean: Number.NaN, std: Number.NaN };
  const { precision, recall } = await precisionRecall(generated.features, real.features.subarray(0, precisionRecallImages * dimension), { dimension, neighbours, signal, onProgress });
  const warnings = [...distance.warnings];
  if (!network.comparable) warnings.push(`features are those of ${name}: compare these numbers with each other, not with published ones`);
  if (network.note !== undefined) warnings.push(network.note);
  return {
    fid: distance.distance,
    inceptionScore: score.mean,
    inceptionScoreStd: score.std,
    precision,
    recall,
    counts: { generated: generated.count, real: real.count },
    network: name,
    ...(version === undefined ? {} : { networkVersion: version }),
    warnings,
  };
}

/** Mean and covariance of extracted features. @param name what an error calls them */
export function statisticsOf({ features }: ExtractedFeatures, dimension: number, name = 'statisticsOf: features'): Statistics {
  const rows = rowsOf(name, features, dimension);
  if (rows < 2) throw new ArgumentError(`${name}: rows`, rows, 'at least 2: one image has no covariance');
  const statistics = new FeatureStatistics(dimension);
  statistics.add(features);
  return statistics.finish();
}

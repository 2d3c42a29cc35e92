import { ArgumentError, type LongTaskOptions, createRng } from '@tinyfusion/core';
import { type FeatureNetwork, type Inception, type SavedStatistics, type Statistics, frechetDistance, frechetInfinity, kernelDistance, precisionRecall } from '@tinyfusion/eval';
import type { ImageSource } from './image-source.js';
import type { Shared } from './loop.js';
import { type SetFeatures, type SetNetwork, setFeatures, setNetwork } from './set-features.js';

/**
 * The protocol of OpenAI's `evaluator.py`, which ADM, DiT and the paper measure by: FID, sFID, Inception Score, precision
 * and recall of two sets of images on the features of FID's Inception; or the same on another network's features.
 *
 * Command: `tinyfusion evaluate VIRTUAL_imagenet256_labeled.npz samples.npz --inception pt_inception-2015-12-05.pth`.
 * Cost: a pass of the network over both sets, and k-nearest neighbours among them for precision and recall.
 */

/** What samples are measured against: images, statistics of images, or both, as ADM's reference batches have. */
export interface Reference {
  name: string;
  images?: ImageSource | undefined;
  /** Of more images than are at hand; taken in place of those of `images`. */
  statistics?: SavedStatistics | undefined;
}

/**
 * What can be measured: `fid` is the Fréchet distance of any network, `pr` precision, recall, density and
 * coverage, `fid-infinity` the distance extrapolated to infinitely many samples (Chong & Forsyth 2020).
 */
export type Metric = 'fid' | 'sfid' | 'is' | 'pr' | 'kid' | 'fid-infinity';

/** The numbers of one set of samples against a reference; plain JSON. What was not asked for, or cannot be had, is absent. */
export interface ImageEvaluation {
  inceptionScore?: number;
  /** Deviation over parts of 5,000 images; 0 for one part. */
  inceptionScoreStd?: number;
  fid?: number;
  sfid?: number;
  /** FID extrapolated to infinitely many samples, and its standard error. */
  fidInfinity?: number;
  fidInfinityError?: number;
  precision?: number;
  recall?: number;
  density?: number;
  coverage?: number;
  /** Mean over subsets of the squared kernel distance. */
  kid?: number;
  kidStd?: number;
  /** Wilson's 95 % intervals for the shares of precision (over the samples) and recall (over the reference). */
  intervals?: { precision: [number, number]; recall: [number, number] };
  counts: { samples: number; reference?: number };
  network: string;
  resize: string;
  warnings: string[];
}

/** Options of {@link evaluateImages}. */
export interface EvaluateImagesOptions extends LongTaskOptions, Shared {
  /** Default: all that the network and the reference allow, but for `'kid'`. */
  metrics?: readonly Metric[] | undefined;
  /** Images a pass of the network. Default 32. */
  batchSize?: number | undefined;
  /** Draws the subsets of KID and of `'fid-infinity'`. Default 0. */
  seed?: number;
}

/** ADM's manifolds are spanned by the third neighbour. */
const NEIGHBOURS = 3;

/**
 * Measures samples against a reference. Without precision, recall and KID memory does not grow with the images.
 * @throws ArgumentError where a metric asked for cannot be had, or a set is too small for it
 */
export async function evaluateImages(network: Inception | FeatureNetwork, reference: Reference, samples: ImageSource, { metrics, batchSize, seed = 0, signal, onProgress, collective }: EvaluateImagesOptions = {}): Promise<ImageEvaluation> {
  const net = setNetwork(network);
  const impossible: Record<Metric, string | undefined> = { fid: undefined, 'fid-infinity': undefined, sfid: reasonAgainstSpatial(net, reference), is: net.classes === 0 ? `${net.name} does not classify` : undefined, pr: reference.images === undefined ? `${reference.name} has statistics alone, no images` : undefined, kid: reference.images === undefined ? `${reference.name} has statistics alone, no images` : undefined };
  for (const metric of metrics ?? []) if (impossible[metric] !== undefined) throw new ArgumentError('metrics', metric, `others: ${impossible[metric]}`);
  const wanted = new Set(metrics ?? (['fid', 'sfid', 'is', 'pr'] as const).filter((metric) => impossible[metric] === undefined));
  const among = wanted.has('pr') || wanted.has('kid');
  const options = { batchSize, signal, onProgress, collective };

  const distances = wanted.has('fid') || wanted.has('sfid') || wanted.has('fid-infinity');
  const needsReference = among || (distances && (reference.statistics === undefined || (wanted.has('sfid') && reference.statistics.spatial === undefined)));
  const real = needsReference ? await setFeatures(net, imagesOf(reference), { ...options, rows: among }) : undefined;
  const fake = await setFeatures(net, samples, { ...options, rows: among || wanted.has('fid-infinity'), scored: wanted.has('is') });
  if (among) for (const [name, set] of [[reference.name, real!], [samples.name, fake]] as const) if (set.count <= NEIGHBOURS) throw new ArgumentError(`images of ${name}`, set.count, `more than ${NEIGHBOURS}, which precision and recall need; better 50,000`);

  const warnings: string[] = [];
  const distance = (of: 'pooled' | 'spatial'): number => {
    const { distance: value, warnings: own } = frechetDistance(finished(fake, of), reference.statistics?.[of] ?? finished(real!, of));
    warnings.push(...own);
    return value;
  };
  const result: Omit<ImageEvaluation, 'counts' | 'network' | 'resize' | 'warnings'> = {};
  if (wanted.has('is')) {
    const mean = fake.scores.reduce((a, b) => a + b, 0) / fake.scores.length;
    Object.assign(result, { inceptionScore: mean, inceptionScoreStd: Math.sqrt(fake.scores.reduce((sum, s) => sum + (s - mean) ** 2, 0) / fake.scores.length) });
  }
  if (wanted.has('fid')) result.fid = distance('pooled');
  if (wanted.has('sfid')) result.sfid = distance('spatial');
  if (wanted.has('pr')) {
    const found = await precisionRecall(fake.rows!, real!.rows!, { dimension: net.dimension, neighbours: NEIGHBOURS, signal, onProgress });
    Object.assign(result, found, { intervals: { precision: wilson(found.precision, fake.count), recall: wilson(found.recall, real!.count) } });
  }
  if (wanted.has('kid')) {
    const subsetSize = Math.min(1000, fake.count, real!.count);
    const { mean, std } = await kernelDistance(fake.rows!, real!.rows!, { dimension: net.dimension, subsetSize, rng: createRng(seed), signal, onProgress });
    Object.assign(result, { kid: mean, kidStd: std });
  }
  if (wanted.has('fid-infinity')) {
    const { distance: value, standardError } = await frechetInfinity(fake.rows!, reference.statistics?.pooled ?? finished(real!, 'pooled'), { rng: createRng(seed).split('infinity'), signal, onProgress });
    Object.assign(result, { fidInfinity: value, fidInfinityError: standardError });
  }
  const sets = [samples, ...(needsReference ? [imagesOf(reference)] : [])];
  return {
    ...result,
    counts: { samples: fake.count, ...(real === undefined ? {} : { reference: real.count }) },
    network: net.name,
    resize: net.resize,
    warnings: [...new Set([...warnings, ...warningsOf(net, reference, samples, fake.count), ...sets.flatMap((set) => set.warnings)])],
  };
}

function reasonAgainstSpatial(net: SetNetwork, { name, images, statistics }: Reference): string | undefined {
  if (net.spatialDimension === 0) return `${net.name} has no spatial features`;
  return images === undefined && statistics?.spatial === undefined ? `${name} has no spatial statistics (mu_s, sigma_s)` : undefined;
}

function imagesOf({ name, images }: Reference): ImageSource {
  if (images === undefined) throw new ArgumentError('reference', name, 'one with images, or with the statistics of every metric asked for');
  return images;
}

function finished(set: SetFeatures, of: 'pooled' | 'spatial'): Statistics {
  return set[of]!.finish();
}

function warningsOf(net: SetNetwork, { images }: Reference, samples: ImageSource, count: number): string[] {
  const warnings: string[] = [];
  if (count < 50_000) warnings.push(`${count} samples: papers measure 50,000, and distances fall with their number`);
  if (images !== undefined && (images.height !== samples.height || images.width !== samples.width)) warnings.push(`images of ${samples.width} × ${samples.height} against references of ${images.width} × ${images.height}: both are resized to ${net.inputSize} × ${net.inputSize}, and differ by that too`);
  if (Math.min(samples.height, samples.width) < 64) warnings.push(`images of ${samples.width} × ${samples.height} are enlarged to ${net.inputSize} × ${net.inputSize}: the network was made for photographs of that size`);
  if (!net.comparable) warnings.push(`features are those of ${net.name}: compare these numbers with each other, not with published ones`);
  if (net.note !== undefined) warnings.push(net.note);
  return warnings;
}

/** Wilson's score interval of a share of n. */
function wilson(share: number, n: number, z = 1.96): [number, number] {
  const centre = (share + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

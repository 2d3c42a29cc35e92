import { ArgumentError, CheckpointError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { FeatureStatistics, type Inception, type Statistics, frechetDistance, inceptionScore, precisionRecall } from '@tinyfusion/eval';
import { type StateDict, type TensorRecord, toFloat64 } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { breathe } from './loop.js';

/**
 * The protocol of OpenAI's `evaluator.py`, which ADM, DiT and the paper measure by: FID, sFID, Inception Score, precision
 * and recall of two sets of images on the features of FID's Inception.
 *
 * Command: `tinyfusion evaluate reference.npz samples.npz --inception pt_inception.safetensors`.
 * Cost: a pass of Inception over both sets.
 */

/** A set of images as evaluators exchange it: `arr_0` of an `.npz`, and statistics where they are in it. */
export interface ImageSet {
  name: string;
  /** Bytes `[N, H, W, 3]`. */
  images: TensorRecord;
  /** ADM's `mu`, `sigma`, `mu_s` and `sigma_s`, of more images than the file holds. */
  statistics?: { pooled: Statistics; spatial: Statistics };
}

/** The numbers of one set of samples against a reference; plain JSON. */
export interface ImageEvaluation {
  inceptionScore: number;
  /** Deviation over parts of 5,000 images; 0 for one part. */
  inceptionScoreStd: number;
  fid: number;
  sfid: number;
  precision: number;
  recall: number;
  counts: { samples: number; reference: number };
  warnings: string[];
}

/**
 * An image set from an archive.
 * @throws CheckpointError where it has no images of bytes, or statistics of other sizes
 */
export async function imageSet(archive: StateDict, name: string): Promise<ImageSet> {
  const images = archive.tensors.get('arr_0');
  if (images === undefined) throw new CheckpointError(`${name} has no arr_0, where images are; it has: ${[...archive.tensors.keys()].join(', ') || 'nothing'}`);
  if (images.dtype !== 'U8' || images.shape.length !== 4 || images.shape[3] !== 3) throw new CheckpointError(`${name}: arr_0 is ${images.dtype} of shape [${images.shape.join(', ')}], expected bytes of shape [N, height, width, 3]`);
  const pooled = await statisticsOf(archive, 'mu', 'sigma', 2048, name);
  const spatial = await statisticsOf(archive, 'mu_s', 'sigma_s', 2023, name);
  return { name, images, ...(pooled === undefined || spatial === undefined ? {} : { statistics: { pooled, spatial } }) };
}

async function statisticsOf({ tensors }: StateDict, mu: string, sigma: string, dimension: number, name: string): Promise<Statistics | undefined> {
  const [mean, covariance] = [tensors.get(mu), tensors.get(sigma)];
  if (mean === undefined || covariance === undefined) return undefined;
  if (String(mean.shape) !== String([dimension]) || String(covariance.shape) !== String([dimension, dimension])) throw new CheckpointError(`${name}: ${mu} and ${sigma} are [${mean.shape.join(', ')}] and [${covariance.shape.join(', ')}], expected those of ${dimension} features`);
  return { count: Number.MAX_SAFE_INTEGER, dimension, mean: await toFloat64(mean), covariance: await toFloat64(covariance) };
}

interface SetFeatures {
  count: number;
  /** `[N, 2048]` */
  pooled: Float32Array;
  statistics: { pooled: Statistics; spatial: Statistics };
  scores: number[];
}

/** Options of {@link evaluateImages}. */
export interface EvaluateImagesOptions extends LongTaskOptions {
  /** Images a pass of the network. Default 32. */
  batchSize?: number;
}

/** Measures samples against a reference. @throws ArgumentError where a set has fewer images than precision and recall need */
export async function evaluateImages(net: Inception, reference: ImageSet, samples: ImageSet, { batchSize = 32, signal, onProgress }: EvaluateImagesOptions = {}): Promise<ImageEvaluation> {
  const options = { batchSize, signal, onProgress };
  const real = await featuresOf(net, reference, { ...options, scored: false });
  const fake = await featuresOf(net, samples, { ...options, scored: true });
  const fid = frechetDistance(fake.statistics.pooled, (reference.statistics ?? real.statistics).pooled);
  const sfid = frechetDistance(fake.statistics.spatial, (reference.statistics ?? real.statistics).spatial);
  const { precision, recall } = await precisionRecall(fake.pooled, real.pooled, { dimension: 2048, signal, onProgress });
  const mean = fake.scores.reduce((a, b) => a + b, 0) / fake.scores.length;
  const warnings = [...fid.warnings];
  if (fake.count < 50_000) warnings.push(`${fake.count} samples: papers measure 50,000, and FID falls with their number`);
  const [a, b] = [reference.images.shape, samples.images.shape];
  if (a[1] !== b[1] || a[2] !== b[2]) warnings.push(`images of ${b[1]} × ${b[2]} against references of ${a[1]} × ${a[2]}: both are resized to 299 × 299, and differ by that too`);
  return {
    inceptionScore: mean,
    inceptionScoreStd: Math.sqrt(fake.scores.reduce((sum, s) => sum + (s - mean) ** 2, 0) / fake.scores.length),
    fid: fid.distance,
    sfid: sfid.distance,
    precision,
    recall,
    counts: { samples: fake.count, reference: real.count },
    warnings,
  };
}

/** ADM's evaluator scores parts of this many images. */
const SCORED_PART = 5000;

async function featuresOf(net: Inception, { name, images: record }: ImageSet, { batchSize, scored, signal, onProgress }: { batchSize: number; scored: boolean } & LongTaskOptions): Promise<SetFeatures> {
  const [count, height, width] = record.shape as [number, number, number, number];
  if (count < 4) throw new ArgumentError(`images of ${name}`, count, 'at least 4, better 50,000');
  const bytes = await record.read();
  const size = height * width * 3;
  const pooled = new Float32Array(count * 2048);
  const [pooledStatistics, spatialStatistics] = [new FeatureStatistics(2048), new FeatureStatistics(2023)];
  const scores: number[] = [];
  let logits: Float32Array[] = [];
  let waiting = 0;
  const score = (): void => {
    const all = new Float32Array(waiting * 1008);
    let at = 0;
    for (const part of logits) {
      all.set(part, at);
      at += part.length;
    }
    scores.push(inceptionScore(all, { classes: 1008, splits: 1 }).mean);
    [logits, waiting] = [[], 0];
  };
  for (let at = 0; at < count; ) {
    throwIfCancelled(signal, 'features');
    // a batch ends where a scored part does
    const n = Math.min(batchSize, count - at, SCORED_PART - waiting);
    const out = tf.tidy(() => {
      const batch = tf.tensor4d(Float32Array.from(bytes.subarray(at * size, (at + n) * size)), [n, height, width, 3]);
      const { 2048: features, spatial, logitsUnbiased } = net.forward(batch);
      return { features, spatial, logitsUnbiased };
    });
    const features = (await out.features.data()) as Float32Array;
    pooled.set(features, at * 2048);
    pooledStatistics.add(features);
    spatialStatistics.add((await out.spatial.data()) as Float32Array);
    if (scored) logits.push(Float32Array.from(await out.logitsUnbiased.data()));
    tf.dispose([out.features, out.spatial, out.logitsUnbiased]);
    at += n;
    waiting += n;
    if (waiting === SCORED_PART || at === count) {
      if (scored) score();
      waiting = 0;
    }
    onProgress?.({ task: `features of ${name}`, step: at, total: count, unit: 'image' });
    await breathe();
  }
  return { count, pooled, statistics: { pooled: pooledStatistics.finish(), spatial: spatialStatistics.finish() }, scores };
}

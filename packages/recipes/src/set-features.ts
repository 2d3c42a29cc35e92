import { ArgumentError, type LongTaskOptions, concatenate, throwIfCancelled } from '@tinyfusion/core';
import { type FeatureNetwork, FeatureStatistics, Inception, inceptionScore } from '@tinyfusion/eval';
import * as tf from '@tensorflow/tfjs-core';
import type { ImageSource } from './image-source.js';
import { breathe } from './loop.js';

/** What the sets of an evaluation are looked at with. */
export interface SetNetwork {
  name: string;
  /** Length of a feature vector. */
  dimension: number;
  /** Length of the features of sFID; 0 where the network has none. */
  spatialDimension: number;
  /** Number of classes; 0 where it does not classify. */
  classes: number;
  /** Whether its numbers may be put beside published ones. */
  comparable: boolean;
  note?: string | undefined;
  /** How images come to its size. */
  resize: string;
  inputSize: number;
  /** @param images `[N, H, W, 3]`, values from 0 to 255; borrowed. Results are the caller's. */
  run(images: tf.Tensor4D): Promise<{ features: tf.Tensor2D; spatial?: tf.Tensor2D; logits?: tf.Tensor2D }>;
}

/** FID's Inception as ADM's evaluator uses it, or any feature network. It stays the caller's. */
export function setNetwork(net: Inception | FeatureNetwork): SetNetwork {
  if (net instanceof Inception) {
    return {
      name: 'Inception of 2015-12-05',
      dimension: 2048,
      spatialDimension: 2023,
      classes: 1008,
      comparable: true,
      resize: 'bilinear, as TensorFlow 1',
      inputSize: 299,
      run: async (images) =>
        tf.tidy(() => {
          const { 2048: features, spatial, logitsUnbiased: logits } = net.forward(images);
          return { features, spatial, logits };
        }),
    };
  }
  const { name, dimension, classes, comparable, note, inputSize, resize = 'none' } = net;
  return {
    name,
    dimension,
    spatialDimension: 0,
    classes,
    comparable,
    note,
    resize,
    inputSize,
    run: async (images) => {
      const scaled = tf.tidy(() => tf.sub(tf.div(images, 127.5), 1) as tf.Tensor4D);
      const prepared = net.prepare === undefined ? scaled : await net.prepare(scaled);
      try {
        return net.run(prepared);
      } finally {
        tf.dispose([scaled, prepared]);
      }
    },
  };
}

/** What is kept of a set of images. */
export interface SetFeatures {
  count: number;
  pooled: FeatureStatistics;
  spatial: FeatureStatistics | undefined;
  /** `[count, dimension]`, where asked for. */
  rows: Float32Array | undefined;
  /** Inception Score of each part of 5,000 images, where asked for. */
  scores: number[];
}

/** Options of {@link setFeatures}. */
export interface SetFeaturesOptions extends LongTaskOptions {
  /** Images a pass. Default 32. */
  batchSize?: number | undefined;
  /** Whether all feature vectors are kept: for precision, recall and KID. Memory grows with the images then, and else not. */
  rows?: boolean;
  /** Whether the Inception Score is computed, where the network classifies. */
  scored?: boolean;
}

/** ADM's evaluator scores parts of this many images. */
const SCORED_PART = 5000;

/** Runs a network over a set. @throws ArgumentError where it has one image or none; DataError where one cannot be read */
export async function setFeatures(net: SetNetwork, source: ImageSource, { batchSize = 32, rows: kept = false, scored = false, signal, onProgress }: SetFeaturesOptions = {}): Promise<SetFeatures> {
  const { name, height, width } = source;
  const size = height * width * 3;
  const pooled = new FeatureStatistics(net.dimension);
  const spatial = net.spatialDimension === 0 ? undefined : new FeatureStatistics(net.spatialDimension);
  const rows: Float32Array[] = [];
  const scores: number[] = [];
  let logits: Float32Array[] = [];
  let waiting = 0;
  const score = (): void => {
    scores.push(inceptionScore(concatenate(logits), { classes: net.classes, splits: 1 }).mean);
    [logits, waiting] = [[], 0];
  };
  let count = 0;
  for await (const bytes of source.batches(batchSize)) {
    throwIfCancelled(signal, 'features');
    const n = bytes.length / size;
    const images = tf.tensor4d(Float32Array.from(bytes), [n, height, width, 3]);
    const out = await net.run(images);
    images.dispose();
    const features = Float32Array.from(await out.features.data());
    pooled.add(features);
    if (kept) rows.push(features);
    if (out.spatial !== undefined) spatial?.add((await out.spatial.data()) as Float32Array);
    if (scored && out.logits !== undefined) {
      // a part may end inside of a batch
      const all = Float32Array.from(await out.logits.data());
      for (let at = 0; at < n; ) {
        const taken = Math.min(n - at, SCORED_PART - waiting);
        logits.push(all.subarray(at * net.classes, (at + taken) * net.classes));
        waiting += taken;
        at += taken;
        if (waiting === SCORED_PART) score();
      }
    }
    tf.dispose({ ...out });
    count += n;
    onProgress?.({ task: `features of ${name}`, step: count, total: Math.max(count, source.count), unit: 'image' });
    await breathe();
  }
  if (waiting > 0) score();
  if (count < 2) throw new ArgumentError(`images of ${name}`, count, 'at least 2, better 50,000: one image has no covariance');
  return { count, pooled, spatial, rows: kept ? concatenate(rows) : undefined, scores };
}

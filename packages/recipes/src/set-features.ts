import { ArgumentError, CancelledError, type LongTaskOptions, concatenate } from '@tinyfusion/core';
import { type FeatureNetwork, FeatureStatistics, Inception, inceptionScore } from '@tinyfusion/eval';
import * as tf from '@tensorflow/tfjs-core';
import { type Collective, allGather, anyRank, singleCollective } from '@tinyfusion/train';
import { checkCount } from './check-options.js';
import type { ImageSource } from './image-source.js';
import { type Shared, breathe } from './loop.js';

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
export interface SetFeaturesOptions extends LongTaskOptions, Shared {
  /** Images a pass. Default 32. */
  batchSize?: number | undefined;
  /** Whether all feature vectors are kept: for precision, recall and KID. Memory grows with the images then, and else not. */
  rows?: boolean;
  /** Whether the Inception Score is computed, where the network classifies. */
  scored?: boolean;
}

/** ADM's evaluator scores parts of this many images. */
const SCORED_PART = 5000;

/** What a network says of one batch. */
interface BatchFeatures {
  n: number;
  features: Float32Array;
  spatial: Float32Array | undefined;
  logits: Float32Array | undefined;
}

/**
 * Runs a network over a set. Ranks of a collective run it over a batch each in turn, and all get the whole, which is what one
 * process gets: all read the set.
 * @throws ArgumentError where it has one image or none; DataError where one cannot be read
 */
export async function setFeatures(net: SetNetwork, source: ImageSource, { batchSize = 32, rows: kept = false, scored = false, signal, onProgress, collective = singleCollective() }: SetFeaturesOptions = {}): Promise<SetFeatures> {
  const { name } = source;
  checkCount('batchSize', batchSize);
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
  const run = async (bytes: Uint8Array): Promise<BatchFeatures> => {
    const n = bytes.length / (source.height * source.width * 3);
    const images = tf.tensor4d(Float32Array.from(bytes), [n, source.height, source.width, 3]);
    const out = await net.run(images);
    images.dispose();
    try {
      const values = async (tensor: tf.Tensor | undefined): Promise<Float32Array | undefined> => tensor && Float32Array.from(await tensor.data());
      return { n, features: (await values(out.features))!, spatial: spatial && (await values(out.spatial)), logits: scored ? await values(out.logits) : undefined };
    } finally {
      tf.dispose({ ...out });
    }
  };
  for await (const { n, features, spatial: own, logits: all } of inRounds(source.batches(batchSize), run, collective, signal)) {
    pooled.add(features);
    if (kept) rows.push(features);
    if (own !== undefined) spatial?.add(own);
    // a part may end inside of a batch
    const scoring = all === undefined ? 0 : n;
    for (let at = 0; at < scoring; ) {
      const taken = Math.min(n - at, SCORED_PART - waiting);
      logits.push(all!.subarray(at * net.classes, (at + taken) * net.classes));
      waiting += taken;
      at += taken;
      if (waiting === SCORED_PART) score();
    }
    count += n;
    onProgress?.({ task: `features of ${name}`, step: count, total: Math.max(count, source.count), unit: 'image' });
    await breathe();
  }
  if (waiting > 0) score();
  if (count < 2) throw new ArgumentError(`images of ${name}`, count, 'at least 2, better 50,000: one image has no covariance');
  return { count, pooled, spatial, rows: kept ? concatenate(rows) : undefined, scores };
}

/**
 * Every batch's features in order; with several ranks each runs one of so many.
 * @yields features of a batch, on every rank
 */
async function* inRounds(batches: AsyncIterable<Uint8Array>, run: (bytes: Uint8Array) => Promise<BatchFeatures>, collective: Collective, signal: AbortSignal | undefined): AsyncGenerator<BatchFeatures, void, void> {
  const { rank, size } = collective;
  let [waiting, mine]: [number, Uint8Array | undefined] = [0, undefined];
  async function* round(): AsyncGenerator<BatchFeatures, void, void> {
    if (await anyRank(collective, signal?.aborted === true)) throw new CancelledError('features');
    const own = mine && (await run(mine));
    if (size === 1) yield own!;
    else {
      const none = new Float32Array(0);
      const counts = await allGather(collective, Float32Array.of(own?.n ?? 0));
      const [features, spatial, logits] = [await allGather(collective, own?.features ?? none), await allGather(collective, own?.spatial ?? none), await allGather(collective, own?.logits ?? none)];
      const given = (values: Float32Array): Float32Array | undefined => (values.length === 0 ? undefined : values);
      for (let r = 0; r < waiting; r++) yield { n: counts[r]![0]!, features: features[r]!, spatial: given(spatial[r]!), logits: given(logits[r]!) };
    }
    [waiting, mine] = [0, undefined];
  }
  for await (const bytes of batches) {
    if (waiting === rank) mine = bytes;
    if (++waiting === size) yield* round();
  }
  if (waiting > 0) yield* round();
}

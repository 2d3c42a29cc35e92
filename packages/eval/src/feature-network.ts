import { ArgumentError, type LongTaskOptions, ShapeError, concatenate, throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/** A network that turns images into features, and into logits where it classifies. */
export interface FeatureNetwork {
  readonly name: string;
  /** Which weights it has, e.g. a hash of its checkpoint. */
  readonly version?: string;
  /** Height and width of its images. */
  readonly inputSize: number;
  /** How it brings images of another size to `inputSize`. Default `'none'`: it takes that size alone. */
  readonly resize?: string;
  /** Length of a feature vector. */
  readonly dimension: number;
  /** Number of classes; 0 without logits. */
  readonly classes: number;
  /**
   * Whether numbers measured with it may be put beside published ones of the same network: FID for the Inception of 2015,
   * FD-DINOv2 for DINOv2's ViT-L/14.
   */
  readonly comparable: boolean;
  /** What a reader should know of numbers measured with it; a warning in their provenance. */
  readonly note?: string;
  /**
   * Brings images to what `run` takes, where that needs their values. Default: nothing is done.
   * @param images `[N, H, W, C]` in [-1, 1]; borrowed
   * @returns `[N, inputSize, inputSize, C]` in [-1, 1], the caller's
   */
  prepare?(images: tf.Tensor4D): Promise<tf.Tensor4D>;
  /** @param images `[N, H, W, C]` in [-1, 1]; borrowed. The results belong to the caller. */
  run(images: tf.Tensor4D): { features: tf.Tensor2D; logits?: tf.Tensor2D };
}

/** Where features come from; plain JSON. */
export interface FeatureProvenance {
  network: string;
  /** As the network states it; absent where it does not. */
  version?: string;
  /** How images were resized. */
  resize: string;
  images: number;
  /** What a reader should know before comparing numbers made from these features. */
  warnings: string[];
}

/** Features and logits of many images, read back. */
export interface ExtractedFeatures {
  count: number;
  /** Rows of `dimension` values. */
  features: Float32Array;
  /** Rows of `classes` values. */
  logits: Float32Array;
  provenance: FeatureProvenance;
}

/** Options of {@link extractFeatures}. */
export interface ExtractOptions extends LongTaskOptions {
  /** Number of images, for progress. */
  total?: number;
}

/**
 * Runs a feature network over a stream of images; only features stay, and no tensor.
 *
 * @param batches each `[N, H, W, C]` in [-1, 1]; disposed of here
 * @throws ShapeError where the network's results are not what it states; ArgumentError where no image came
 */
export async function extractFeatures(network: FeatureNetwork, batches: Iterable<tf.Tensor4D> | AsyncIterable<tf.Tensor4D>, { total, signal, onProgress }: ExtractOptions = {}): Promise<ExtractedFeatures> {
  const features: Float32Array[] = [];
  const logits: Float32Array[] = [];
  let count = 0;
  try {
    for await (const images of batches) {
      try {
        throwIfCancelled(signal, 'extract features');
        const out = await runPrepared(network, images);
        try {
          features.push(await values('features', network, out.features, images.shape[0], network.dimension));
          if (network.classes > 0) logits.push(await values('logits', network, out.logits, images.shape[0], network.classes));
        } finally {
          tf.dispose({ ...out });
        }
        count += images.shape[0];
      } finally {
        images.dispose();
      }
      onProgress?.({ task: 'extract features', step: count, total, unit: 'image' });
      // on the cpu and on WASM nothing above lets a timer or a key stop it
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  } finally {
    // a generator is closed by the loop; what a list still holds is left
    if (Array.isArray(batches)) tf.dispose(batches as tf.Tensor4D[]);
  }
  if (count === 0) throw new ArgumentError('extractFeatures: images', 0, 'at least one; the stream of batches was empty');
  return { count, features: concatenate(features), logits: concatenate(logits), provenance: provenanceOf(network, count) };
}

async function runPrepared(network: FeatureNetwork, images: tf.Tensor4D): Promise<ReturnType<FeatureNetwork['run']>> {
  const prepared = await network.prepare?.(images);
  try {
    return network.run(prepared ?? images);
  } finally {
    prepared?.dispose();
  }
}

async function values(what: string, network: FeatureNetwork, tensor: tf.Tensor | undefined, count: number, length: number): Promise<Float32Array> {
  if (tensor === undefined || tensor.shape.length !== 2 || tensor.shape[0] !== count || tensor.shape[1] !== length) throw new ShapeError(`extractFeatures: ${what} of ${network.name}`, tensor?.shape ?? [], `N=${count}, ${length}`);
  return (await tensor.data()) as Float32Array;
}

function provenanceOf({ name, version, resize = 'none', dimension, comparable, note }: FeatureNetwork, images: number): FeatureProvenance {
  const warnings: string[] = [];
  if (images <= dimension) warnings.push(`${images} images for ${dimension} features: their covariance is singular; use more than ${dimension}, better ten times as many`);
  if (!comparable) warnings.push(`features are those of ${name}: compare these numbers with each other, not with published ones`);
  if (note !== undefined) warnings.push(note);
  return { network: name, ...(version === undefined ? {} : { version }), resize, images, warnings };
}

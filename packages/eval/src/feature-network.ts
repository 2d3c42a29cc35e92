import { type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/** A network that turns images into features, and into logits where it classifies. */
export interface FeatureNetwork {
  readonly name: string;
  /** Height and width of its images. */
  readonly inputSize: number;
  /** Length of a feature vector. */
  readonly dimension: number;
  /** Number of classes; 0 without logits. */
  readonly classes: number;
  /** Whether numbers measured with it may be put beside published ones (Inception of 2015 alone). */
  readonly comparable: boolean;
  /** @param images `[N, H, W, C]` in [-1, 1]; borrowed. The results belong to the caller. */
  run(images: tf.Tensor4D): { features: tf.Tensor2D; logits?: tf.Tensor2D };
}

/** Features and logits of many images, read back. */
export interface ExtractedFeatures {
  count: number;
  /** Rows of `dimension` values. */
  features: Float32Array;
  /** Rows of `classes` values. */
  logits: Float32Array;
}

/** Options of {@link extractFeatures}. */
export interface ExtractOptions extends LongTaskOptions {
  /** Number of images, for progress. */
  total?: number;
}

/**
 * Runs a feature network over a stream of images.
 * @param batches each `[N, H, W, C]` in [-1, 1]; disposed of here
 */
export async function extractFeatures(network: FeatureNetwork, batches: Iterable<tf.Tensor4D> | AsyncIterable<tf.Tensor4D>, { total, signal, onProgress }: ExtractOptions = {}): Promise<ExtractedFeatures> {
  const features: Float32Array[] = [];
  const logits: Float32Array[] = [];
  let count = 0;
  for await (const images of batches) {
    throwIfCancelled(signal, 'extract features');
    const out = network.run(images);
    features.push((await out.features.data()) as Float32Array);
    if (out.logits !== undefined) logits.push((await out.logits.data()) as Float32Array);
    count += images.shape[0];
    tf.dispose([images, out.features, ...(out.logits === undefined ? [] : [out.logits])]);
    onProgress?.({ task: 'extract features', step: count, total, unit: 'image' });
  }
  return { count, features: concatenate(features), logits: concatenate(logits) };
}

function concatenate(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

import { type Float, axes, silu } from '@tinyfusion/kernels';
import { Conv2d, GroupNorm, type Init, Linear, Module, loadState, storedConfig } from '@tinyfusion/nn';
import type { StateDict } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import type { FeatureNetwork } from './feature-network.js';

/** The shape of a {@link ConvClassifier}. */
export interface ConvClassifierConfig {
  /** Height and width of its images. */
  inputSize: number;
  inChannels: number;
  /** Channels of the first convolution, a multiple of 8; the second has twice as many, the last as many as features. */
  width: number;
  /** Length of the feature vector, a multiple of 8. */
  features: number;
  numClasses: number;
}

/**
 * A small convolutional classifier whose pooled activations serve as features where images are too small for Inception:
 * three strided convolutions with group norms, global average, one linear layer.
 */
export class ConvClassifier extends Module {
  readonly config: Readonly<ConvClassifierConfig>;
  readonly convs: Conv2d[];
  readonly norms: GroupNorm[];
  readonly fc: Linear;

  constructor(config: ConvClassifierConfig, { init }: { init: Init }) {
    super();
    this.config = { ...config };
    const { inChannels, width, features, numClasses } = config;
    const widths = [inChannels, width, 2 * width, 2 * width, features];
    const strides = [2, 1, 2, 2];
    this.convs = strides.map((stride, i) => new Conv2d(widths[i]!, widths[i + 1]!, 3, { init, stride, padding: 1 }));
    this.norms = strides.map((_, i) => new GroupNorm(widths[i + 1]!, { init, groups: 8 }));
    this.fc = new Linear(features, numClasses, { init });
  }

  /** @param images `[N, H, W, C]` in [-1, 1] @returns `features` `[N, F]` and `logits` `[N, classes]` */
  forward(images: Float<'N H W C'>): { features: tf.Tensor2D; logits: tf.Tensor2D } {
    const { inputSize: side, inChannels } = this.config;
    axes('ConvClassifier.forward: images', images, 'N H W C', { H: side, W: side, C: inChannels });
    return tf.tidy(() => {
      let h = images;
      for (const [i, conv] of this.convs.entries()) h = silu(this.norms[i]!.forward(conv.forward(h)));
      const features = tf.mean(h, [1, 2]) as tf.Tensor2D;
      return { features, logits: this.fc.forward(features) };
    });
  }
}

/** Options of {@link classifierFeatures}. */
export interface ClassifierFeaturesOptions {
  /** Which weights these are, e.g. the hash of the checkpoint; goes into the provenance of the features. */
  version?: string;
}

/** A classifier as a feature network. It stays the caller's. */
export function classifierFeatures(classifier: ConvClassifier, name: string, { version }: ClassifierFeaturesOptions = {}): FeatureNetwork {
  const { inputSize, features, numClasses } = classifier.config;
  return { name, ...(version === undefined ? {} : { version }), inputSize, dimension: features, classes: numClasses, comparable: false, run: (images) => classifier.forward(images) };
}

/** A classifier from a checkpoint of ours alone. @throws CheckpointError where it holds something else */
export async function loadConvClassifier(state: StateDict): Promise<ConvClassifier> {
  const classifier = new ConvClassifier(storedConfig<ConvClassifierConfig>(state, 'ConvClassifier'), { init: 'zeros' });
  try {
    await loadState(classifier, state);
  } catch (error) {
    classifier.dispose();
    throw error;
  }
  return classifier;
}

import * as tf from '@tensorflow/tfjs-core';

/** Kernel name of {@link adamWStep}: inputs parameter, gradient, m, v; outputs parameter, m, v. */
export const ADAMW = 'TinyFusionAdamW';

/** One parameter with its gradient and moments, all of one shape. */
export interface AdamWInputs {
  parameter: tf.Tensor;
  gradient: tf.Tensor;
  /** First moment. */
  m: tf.Tensor;
  /** Second moment. */
  v: tf.Tensor;
}

/** Numbers of one AdamW step. */
export interface AdamWAttributes {
  lr: number;
  beta1: number;
  beta2: number;
  epsilon: number;
  weightDecay: number;
  /** Counted from 1. */
  step: number;
  /** The gradient is multiplied by it first, as clipping asks. Default 1. */
  gradientScale?: number;
  /**
   * Whether parameter, m and v are given up: a backend that can writes the new values over them, where no other tensor
   * shares them. Nothing may then be done with the old ones but to dispose them. Default `false`.
   */
  inPlace?: boolean;
}

/**
 * One step of `torch.optim.AdamW`: p ← p(1 − lr·decay) − lr·m̂/(√v̂ + ε) with bias-corrected moments.
 * @returns new tensors; the inputs are left as they are, but with `inPlace`
 */
export function adamWStep(inputs: AdamWInputs, { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale = 1, inPlace = false }: AdamWAttributes): { parameter: tf.Tensor; m: tf.Tensor; v: tf.Tensor } {
  const decay = 1 - lr * weightDecay;
  const rate = lr / (1 - beta1 ** step);
  const root = 1 / Math.sqrt(1 - beta2 ** step);
  if (tf.getKernel(ADAMW, tf.getBackend()) !== undefined) {
    const attributes = { beta1, beta2, epsilon, decay, rate, root, gradientScale, inPlace: Number(inPlace) };
    const [parameter, m, v] = tf.engine().runKernel(ADAMW, { ...inputs }, attributes) as unknown as [tf.Tensor, tf.Tensor, tf.Tensor];
    return { parameter, m, v };
  }
  return tf.tidy(() => {
    const gradient = tf.mul(inputs.gradient, gradientScale);
    const m = tf.add(tf.mul(inputs.m, beta1), tf.mul(gradient, 1 - beta1));
    const v = tf.add(tf.mul(inputs.v, beta2), tf.mul(tf.square(gradient), 1 - beta2));
    const update = tf.div(tf.mul(m, rate), tf.add(tf.mul(tf.sqrt(v), root), epsilon));
    return { parameter: tf.sub(tf.mul(inputs.parameter, decay), update), m, v };
  });
}

import * as tf from '@tensorflow/tfjs-core';

/** Kernel name of {@link adamWStep}: inputs parameter, gradient, m, v; outputs parameter, m, v. */
export const ADAMW = 'TinyFusionAdamW';
/** The same with a further input and output, average, and attribute averageDecay. */
export const ADAMW_AVERAGE = 'TinyFusionAdamWAverage';

/** One parameter with its gradient and moments, all of one shape. */
export interface AdamWInputs {
  parameter: tf.Tensor;
  gradient: tf.Tensor;
  /** First moment. */
  m: tf.Tensor;
  /** Second moment. */
  v: tf.Tensor;
  /** Moving average of the parameter, which takes in its new value. Default: none. */
  average?: tf.Tensor | undefined;
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
  /** Decay of the moving average. Default 0. */
  averageDecay?: number;
}

/** What a step gives: new values of what it was given. */
export interface AdamWOutputs {
  parameter: tf.Tensor;
  m: tf.Tensor;
  v: tf.Tensor;
  average?: tf.Tensor | undefined;
}

/**
 * One step of `torch.optim.AdamW`: p ← p(1 − lr·decay) − lr·m̂/(√v̂ + ε) with bias-corrected moments, after the gradient was
 * scaled and before the parameter's moving average takes it in. On WebGPU the steps of many parameters are one pass.
 * @returns new tensors; the inputs are left as they are, so that whoever holds their data sees by its id that a parameter has changed
 */
export function adamWStep({ average, ...inputs }: AdamWInputs, { lr, beta1, beta2, epsilon, weightDecay, step, gradientScale = 1, averageDecay = 0 }: AdamWAttributes): AdamWOutputs {
  const decay = 1 - lr * weightDecay;
  const rate = lr / (1 - beta1 ** step);
  const root = 1 / Math.sqrt(1 - beta2 ** step);
  const attributes = { beta1, beta2, epsilon, decay, rate, root, gradientScale };
  const run = (name: string, given: object, attrs: object): tf.Tensor[] => tf.engine().runKernel(name, { ...given } as tf.NamedTensorMap, { ...attrs } as never) as unknown as tf.Tensor[];
  if (average !== undefined && tf.getKernel(ADAMW_AVERAGE, tf.getBackend()) !== undefined) {
    const [parameter, m, v, next] = run(ADAMW_AVERAGE, { ...inputs, average }, { ...attributes, averageDecay }) as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
    return { parameter, m, v, average: next };
  }
  const moved = tf.getKernel(ADAMW, tf.getBackend()) === undefined ? reference(inputs, attributes) : named(run(ADAMW, inputs, attributes));
  return average === undefined ? moved : { ...moved, average: tf.tidy(() => tf.add(average, tf.mul(tf.sub(moved.parameter, average), 1 - averageDecay))) };
}

const named = ([parameter, m, v]: tf.Tensor[]): AdamWOutputs => ({ parameter: parameter!, m: m!, v: v! });

function reference(inputs: AdamWInputs, { beta1, beta2, epsilon, decay, rate, root, gradientScale }: Record<string, number>): AdamWOutputs {
  return tf.tidy(() => {
    const gradient = tf.mul(inputs.gradient, gradientScale!);
    const m = tf.add(tf.mul(inputs.m, beta1!), tf.mul(gradient, 1 - beta1!));
    const v = tf.add(tf.mul(inputs.v, beta2!), tf.mul(tf.square(gradient), 1 - beta2!));
    const update = tf.div(tf.mul(m, rate!), tf.add(tf.mul(tf.sqrt(v), root!), epsilon!));
    return { parameter: tf.sub(tf.mul(inputs.parameter, decay!), update), m, v };
  });
}

import * as tf from '@tensorflow/tfjs-core';
import { defineOp } from './op.js';
import { preciseTanh } from './precise.js';

/** Kernel names: input x; the gradients take dy and x. */
export const GELU = 'TinyFusionGelu';
export const GELU_GRAD = 'TinyFusionGeluGrad';
export const SILU = 'TinyFusionSilu';
export const SILU_GRAD = 'TinyFusionSiluGrad';

const geluOp = defineOp<{ x: tf.Tensor }, Record<string, never>, tf.Tensor>({
  name: GELU,
  reference: ({ x }) => {
    const inner = tf.mul(tf.add(x, tf.mul(tf.mul(tf.square(x), x), 0.044715)), Math.sqrt(2 / Math.PI));
    return tf.mul(tf.mul(x, 0.5), tf.add(preciseTanh(inner), 1));
  },
  gradient: (run, dy, { x }) => ({ x: () => run(GELU_GRAD, { dy, x })[0]! }),
});

const siluOp = defineOp<{ x: tf.Tensor }, Record<string, never>, tf.Tensor>({
  name: SILU,
  reference: ({ x }) => tf.mul(x, tf.sigmoid(x)),
  gradient: (run, dy, { x }) => ({ x: () => run(SILU_GRAD, { dy, x })[0]! }),
});

/** x/2 · (1 + tanh(√(2/π)(x + 0.044715x³))): `torch.nn.GELU('tanh')`, as DiT uses it. Any shape. */
export function gelu<T extends tf.Tensor>(x: T): T {
  return geluOp({ x }, {}) as T;
}

/** x/2 · (1 + erf(x/√2)): `torch.nn.GELU()`, as MAR uses it. Any shape. */
export function geluExact<T extends tf.Tensor>(x: T): T {
  return tf.tidy(() => tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1)) as T);
}

/** x · σ(x), also called swish. Any shape. */
export function silu<T extends tf.Tensor>(x: T): T {
  return siluOp({ x }, {}) as T;
}

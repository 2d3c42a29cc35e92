import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { defineOp } from './op.js';
import { axes } from './shape.js';

/** Kernel name of {@link attention}: inputs q, k, v; attribute scale. */
export const ATTENTION = 'TinyFusionAttention';
/** Its gradients: inputs dy, q, k, v; outputs dq, dk, dv. */
export const ATTENTION_GRAD = 'TinyFusionAttentionGrad';
/** Kernel name of {@link selfAttention}: input qkv; attribute numHeads. */
export const SELF_ATTENTION = 'TinyFusionSelfAttention';
/** Its gradient: inputs dy, qkv; output dqkv. */
export const SELF_ATTENTION_GRAD = 'TinyFusionSelfAttentionGrad';

type AttentionInputs = { q: tf.Tensor4D; k: tf.Tensor4D; v: tf.Tensor4D };

const attentionOp = defineOp<AttentionInputs, { scale: number }, tf.Tensor4D>({
  name: ATTENTION,
  reference: ({ q, k, v }, { scale }) => tf.matMul(tf.softmax(tf.mul(tf.matMul(q, k, false, true), scale)), v),
  gradient: (run, dy, { q, k, v }, attributes) => {
    const [dq, dk, dv] = run(ATTENTION_GRAD, { dy, q, k, v }, attributes);
    return { q: () => dq!, k: () => dk!, v: () => dv! };
  },
});

/** Options of {@link attention}. */
export interface AttentionOptions {
  /** What scores are multiplied by. Default d^−½. */
  scale?: number;
}

/**
 * softmax(scale · q kᵀ) v for each head (Vaswani et al. 2017, equation 1).
 *
 * @param q `[N, h, T, d]`
 * @param k `[N, h, S, d]`
 * @param v `[N, h, S, d]`
 * @returns `[N, h, T, d]`
 * @throws ShapeError where sizes do not agree
 */
export function attention(q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D, { scale }: AttentionOptions = {}): tf.Tensor4D {
  const { N, h, d } = axes('attention: q', q, 'N h T d');
  const { S } = axes('attention: k', k, 'N h S d', { N, h, d });
  axes('attention: v', v, 'N h S d', { N, h, S, d });
  return attentionOp({ q, k, v }, { scale: scale ?? 1 / Math.sqrt(d) });
}

const selfAttentionOp = defineOp<{ qkv: tf.Tensor3D }, { numHeads: number }, tf.Tensor3D>({
  name: SELF_ATTENTION,
  reference: ({ qkv }, { numHeads }) => {
    const [n, t, width] = qkv.shape;
    const d = width / 3 / numHeads;
    const [q, k, v] = tf.split(qkv, 3, 2).map((part) => tf.transpose(tf.reshape(part, [n, t, numHeads, d]), [0, 2, 1, 3])) as [tf.Tensor4D, tf.Tensor4D, tf.Tensor4D];
    return tf.reshape(tf.transpose(attention(q, k, v), [0, 2, 1, 3]), [n, t, numHeads * d]);
  },
  gradient: (run, dy, { qkv }, attributes) => ({ qkv: () => run(SELF_ATTENTION_GRAD, { dy, qkv }, attributes)[0]! }),
});

/** Options of {@link selfAttention}. */
export interface SelfAttentionOptions {
  /** A divisor of D. */
  numHeads: number;
}

/**
 * Multi-head self-attention on a packed projection, scores scaled by d^−½; what timm's `Attention` does between its two
 * linear layers.
 *
 * @param qkv `[N, T, 3·D]`, the last axis being (q, k, v) × heads × d
 * @returns `[N, T, D]`
 * @throws ShapeError, or ArgumentError where heads do not divide the width
 */
export function selfAttention(qkv: tf.Tensor3D, { numHeads }: SelfAttentionOptions): tf.Tensor3D {
  const { W } = axes('selfAttention: qkv', qkv, 'N T W');
  if (!Number.isInteger(numHeads) || numHeads < 1 || W % (3 * numHeads) !== 0) throw new ArgumentError('selfAttention: numHeads', numHeads, `a divisor of D, and a last axis of 3·D; it is ${W}`);
  return selfAttentionOp({ qkv }, { numHeads });
}

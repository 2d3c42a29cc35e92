import * as tf from '@tensorflow/tfjs-core';
import { defineOp } from './op.js';
import { axes } from './shape.js';

/** Kernel name of {@link gatedAdd}: inputs x, gate, y. */
export const GATED_ADD = 'TinyFusionGatedAdd';
/** Its gradients by gate and y: inputs dy, gate, y; outputs dGate, dY. */
export const GATED_ADD_GRAD = 'TinyFusionGatedAddGrad';

const gatedAddOp = defineOp<{ x: tf.Tensor3D; gate: tf.Tensor2D; y: tf.Tensor3D }, Record<string, never>, tf.Tensor3D>({
  name: GATED_ADD,
  reference: ({ x, gate, y }) => tf.add(x, tf.mul(tf.expandDims(gate, 1), y)),
  gradient: (run, dy, { gate, y }) => {
    const [dGate, dBranch] = run(GATED_ADD_GRAD, { dy, gate, y });
    return { x: () => tf.clone(dy), gate: () => dGate!, y: () => dBranch! };
  },
});

/**
 * x + gate · y, the residual connection of adaLN-Zero.
 *
 * @param x `[N, T, D]`
 * @param gate `[N, D]`
 * @param y `[N, T, D]`
 * @throws ShapeError where sizes do not agree
 */
export function gatedAdd(x: tf.Tensor3D, gate: tf.Tensor2D, y: tf.Tensor3D): tf.Tensor3D {
  const { N, T, D } = axes('gatedAdd: x', x, 'N T D');
  axes('gatedAdd: gate', gate, 'N D', { N, D });
  axes('gatedAdd: y', y, 'N T D', { N, T, D });
  return gatedAddOp({ x, gate, y }, {});
}

import { ArgumentError, ShapeError } from '@tinyfusion/core';
import { freeingTape, sumOfSquaresOfAll } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

/** A loss and its gradients, owned by the caller. */
export type LossAndGradients = {
  loss: tf.Scalar;
  /** In the order of the parameters. */
  gradients: tf.Tensor[];
};

/**
 * The value of `loss` and its gradients by `parameters`; a parameter that the loss does not depend on, or that is not
 * trainable, gets zeros. Everything the closure makes is freed, but for what it keeps, also where it throws.
 * @throws ShapeError where the loss is no scalar
 */
export function lossAndGradients(loss: () => tf.Scalar, parameters: readonly tf.Variable[]): LossAndGradients {
  return freeingTape(() => {
    const trainable = parameters.filter((p) => p.trainable);
    // tf.variableGrads would refuse a loss that depends on none of them
    const { value, grads } = trainable.length === 0 ? { value: loss(), grads: [] } : tf.engine().gradients(loss, trainable, undefined, true);
    if (value.rank !== 0) throw new ShapeError('lossAndGradients: loss', value.shape, '');
    const found = new Map(trainable.map((p, i) => [p, grads[i] as tf.Tensor | null | undefined]));
    return { loss: value, gradients: parameters.map((p) => found.get(p) ?? tf.zeros(p.shape)) };
  }) as LossAndGradients;
}

/** √Σ g² over all gradients, as `torch.nn.utils.clip_grad_norm_` measures it. Reads one number back from the device. */
export async function globalNorm(gradients: readonly tf.Tensor[]): Promise<number> {
  const total = tf.tidy(() => tf.sqrt(sumOfSquaresOfAll(gradients)));
  const [norm] = await total.data();
  total.dispose();
  return norm!;
}

/**
 * The factor that brings gradients of norm `norm` down to at most `most`: min(1, most / (norm + 1e-6)), as
 * `clip_grad_norm_` has it. The paper's `most` is 1.
 * @throws ArgumentError where the norm is not finite, as no factor makes a step of such gradients: leave the step out, as the
 * recipes do; and where `most` is not above 0
 */
export function clipFactor(norm: number, most: number): number {
  if (!(norm >= 0 && norm < Infinity)) throw new ArgumentError('clipFactor: norm', norm, 'a finite number from 0; a step whose gradients are not finite is to be left out');
  if (!(most > 0)) throw new ArgumentError('clipFactor: most', most, 'a number above 0');
  return Math.min(1, most / (norm + 1e-6));
}

import { sumOfSquaresOfAll } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

/** A loss and its gradients, owned by the caller. */
export type LossAndGradients = {
  loss: tf.Scalar;
  /** In the order of the parameters. */
  gradients: tf.Tensor[];
};

/**
 * The value of `loss` and its gradients by `parameters`; a parameter that the loss does not depend on gets zeros.
 * Everything the closure makes is freed, but for what it keeps, also where it throws.
 */
export function lossAndGradients(loss: () => tf.Scalar, parameters: readonly tf.Variable[]): LossAndGradients {
  try {
    return tf.tidy(() => {
      const { value, grads } = tf.variableGrads(loss, [...parameters]);
      const gradients = parameters.map((p) => (grads[p.name] as tf.Tensor | null | undefined) ?? tf.zeros(p.shape));
      return { loss: value, gradients };
    }) as LossAndGradients;
  } catch (error) {
    freeTape();
    throw error;
  }
}

/** What tfjs keeps for the gradients to come, and forgets where the closure throws. */
function freeTape(): void {
  const { state } = tf.engine() as unknown as { state: { gradientDepth: number; activeTape: { saved: tf.Tensor[] }[] | null } };
  if (state.gradientDepth > 0 || !Array.isArray(state.activeTape)) return; // an outer gradient has its own use of it
  tf.dispose(state.activeTape.flatMap(({ saved }) => saved));
  state.activeTape = null;
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
 */
export function clipFactor(norm: number, most: number): number {
  return Math.min(1, most / (norm + 1e-6));
}

import * as tf from '@tensorflow/tfjs-core';

/**
 * Runs something that records gradients (`tf.variableGrads` and its like) inside a tidy. Where it throws, what tfjs kept
 * for the gradients to come is freed too, which tfjs forgets.
 */
export function freeingTape<T extends tf.TensorContainer>(compute: () => T): T {
  try {
    return tf.tidy(compute);
  } catch (error) {
    const { state } = tf.engine() as unknown as { state: { gradientDepth: number; activeTape: { saved: tf.Tensor[] }[] | null } };
    // an outer gradient has its own use of its tape
    if (state.gradientDepth === 0 && Array.isArray(state.activeTape)) {
      tf.dispose(state.activeTape.flatMap(({ saved }) => saved));
      state.activeTape = null;
    }
    throw error;
  }
}

import * as tf from '@tensorflow/tfjs-core';
import type { AsyncDenoiser } from './gaussian.js';

/**
 * Runs a model and hands what it puts out to `use`. Where the model is synchronous all is one tidy, and the result is
 * there at once. Where it promises its output, its inputs live until that is there, `use` gets a tidy of its own, and the
 * output is freed after it.
 *
 * @param inputs makes the model's inputs, inside a tidy; neither may be a tensor that was there before
 */
export function evaluate<R extends tf.TensorContainer>(denoiser: AsyncDenoiser, inputs: () => [x: tf.Tensor, t: tf.Tensor1D], use: (output: tf.Tensor) => R): R | Promise<R> {
  let waiting: { promised: Promise<tf.Tensor>; held: tf.Tensor[] } | undefined;
  const result = tf.tidy(() => {
    const made = inputs();
    const output = denoiser(...made);
    if (output instanceof tf.Tensor) return use(output);
    waiting = { promised: output, held: made.map((input) => tf.keep(input)) };
    return undefined as unknown as R;
  });
  return waiting === undefined ? result : settled(waiting, use);
}

async function settled<R extends tf.TensorContainer>({ promised, held }: { promised: Promise<tf.Tensor>; held: tf.Tensor[] }, use: (output: tf.Tensor) => R): Promise<R> {
  try {
    const output = await promised;
    return tf.tidy(() => {
      // a clone, as the result may be the output itself
      const own = tf.clone(output);
      output.dispose();
      return use(own);
    });
  } finally {
    tf.dispose(held);
  }
}

import { ArgumentError, ShapeError } from '@tinyfusion/core';
import { stopGradient } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

/** Options of {@link maskedFeatureLoss}. */
export interface FeatureLossOptions {
  /** k: activations at k standard deviations or more from their mean are masked. `Infinity` masks none. Default 2. */
  sigmas?: number;
  /**
   * `'official'`: each side is multiplied by its own mask, so that an element masked on one side only still costs; what
   * the reference does. `'intersection'`: an element counts where neither side is masked. Both average over all
   * elements. Default `'official'`.
   */
  mode?: 'official' | 'intersection';
}

/**
 * Distance of hidden states without their massive activations (paper, section 3.4; masked RepKD): the mean over mapped
 * layers of mean((mₛ·s − mₜ·t)²). No gradient flows to the teacher. Upstream: the feature term of `training_losses_kd_rep`.
 *
 * @param student hidden states of the mapped layers, each `[N, T, D]`
 * @param teacher those of the layers they are mapped to, in the same order
 * @returns `[N]`
 * @throws ShapeError where a pair's shapes differ
 */
export function maskedFeatureLoss(student: readonly tf.Tensor3D[], teacher: readonly tf.Tensor3D[], options: FeatureLossOptions = {}): tf.Tensor1D {
  return tf.tidy(() => {
    const terms = layerFeatureLosses(student, teacher, options);
    return tf.div(tf.addN(terms), terms.length) as tf.Tensor1D;
  });
}

/** The terms that {@link maskedFeatureLoss} averages: `[N]` for each mapped layer, e.g. for a `FeatureGuard`. */
export function layerFeatureLosses(student: readonly tf.Tensor3D[], teacher: readonly tf.Tensor3D[], { sigmas = 2, mode = 'official' }: FeatureLossOptions = {}): tf.Tensor1D[] {
  if (student.length === 0 || student.length !== teacher.length) throw new ArgumentError('maskedFeatureLoss: layers', [student.length, teacher.length], 'as many student as teacher layers, one at least');
  if (!(sigmas > 0)) throw new ArgumentError('FeatureLossOptions.sigmas', sigmas, 'more than 0');
  if (mode !== 'official' && mode !== 'intersection') throw new ArgumentError('FeatureLossOptions.mode', mode, "'official' or 'intersection'");
  return tf.tidy(() =>
    student.map((s, i) => {
      const t = stopGradient(teacher[i]!);
      if (String(s.shape) !== String(t.shape)) throw new ShapeError(`maskedFeatureLoss: student layer ${i}`, s.shape, t.shape.join(', '));
      let difference: tf.Tensor;
      if (sigmas === Infinity) difference = tf.sub(s, t);
      else {
        const [ownMask, teacherMask] = [activationMask(s, sigmas), activationMask(t, sigmas)];
        difference = mode === 'official' ? tf.sub(tf.mul(s, ownMask), tf.mul(t, teacherMask)) : tf.mul(tf.sub(s, t), tf.mul(ownMask, teacherMask));
      }
      return tf.mean(tf.square(difference), [1, 2]) as tf.Tensor1D;
    }),
  );
}

/**
 * 1 where |h − mean| < k·σ, else 0; mean and (unbiased) σ over the tokens and channels of each sample. No gradient flows
 * through it.
 *
 * @param h `[N, T, D]`
 */
export function activationMask(h: tf.Tensor3D, sigmas: number): tf.Tensor3D {
  const op = tf.customGrad((x) => ({
    value: tf.tidy(() => {
      const states = x as tf.Tensor3D;
      const count = states.shape[1] * states.shape[2];
      const { mean, variance } = tf.moments(states, [1, 2], true);
      const limit = tf.mul(tf.sqrt(tf.mul(variance, count / Math.max(1, count - 1))), sigmas);
      return tf.cast(tf.less(tf.abs(tf.sub(states, mean)), limit), 'float32') as tf.Tensor3D;
    }),
    gradFunc: (dy: tf.Tensor) => tf.zerosLike(dy),
  }));
  return op(h) as tf.Tensor3D;
}

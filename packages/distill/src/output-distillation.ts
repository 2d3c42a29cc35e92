import { ShapeError } from '@tinyfusion/core';
import { type GaussianDiffusion, type Timesteps, type Transport, meanFlat, normalKL } from '@tinyfusion/diffusion';
import { stopGradient } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

/** Terms of {@link distillationTerms}, each `[N]`. */
export type DistillationTerms = {
  /** Squared error against the true noise. */
  mse: tf.Tensor1D;
  /** Squared error plus variational bound: the loss without a teacher. */
  groundTruth: tf.Tensor1D;
  /** Squared error against the teacher's prediction. */
  teacherMse: tf.Tensor1D;
  /** Teacher's squared error plus KL(teacher ‖ student) of the variances, in bits. */
  distillation: tf.Tensor1D;
  /** alpha · distillation + (1 − alpha) · groundTruth. */
  loss: tf.Tensor1D;
};

/** What {@link distillationTerms} compares. */
export interface DistillationInputs {
  /** Outputs of the models for the same noisy data. */
  student: tf.Tensor;
  teacher: tf.Tensor;
  /** Clean data. */
  x0: tf.Tensor;
  /** Noisy data. */
  x: tf.Tensor;
  t: Timesteps;
  noise: tf.Tensor;
}

/** Options of {@link distillationTerms}. */
export interface DistillationOptions {
  /** Weight of the teacher. Default 0.9 (paper, table 6). */
  alpha?: number;
}

/**
 * Output distillation for a process that predicts noise: the student's prediction follows the teacher's and the truth,
 * and its variance the teacher's, where it is learned. Upstream: `training_losses_kd`, but that both models are given the
 * same labels.
 * @throws ShapeError where an output has not the channels that the process's variance needs
 */
export function distillationTerms(diffusion: GaussianDiffusion, { student, teacher, x0, x, t, noise }: DistillationInputs, { alpha = 0.9 }: DistillationOptions = {}): DistillationTerms {
  for (const [of, output] of [['student', student], ['teacher', teacher]] as const) diffusion.checkOutput(output, x, of);
  return tf.tidy(() => {
    const truth = diffusion.lossTerms(student, x0, x, t, noise);
    const frozen = stopGradient(teacher);
    let teacherMse: tf.Tensor1D;
    let distillation: tf.Tensor1D;
    if (diffusion.learnsVariance) {
      const [own, values] = tf.split(student, 2, -1) as [tf.Tensor, tf.Tensor];
      const [target] = tf.split(frozen, 2, -1) as [tf.Tensor, tf.Tensor];
      teacherMse = meanFlat(tf.square(tf.sub(own, target)));
      const options = { clipDenoised: false };
      const wanted = diffusion.moments(frozen, x, t, options);
      const given = diffusion.moments(tf.concat([stopGradient(own), values], -1), x, t, options);
      const divergence = tf.div(meanFlat(normalKL(wanted.mean, wanted.logVariance, given.mean, given.logVariance)), Math.LN2) as tf.Tensor1D;
      distillation = tf.add(teacherMse, diffusion.withDecoderLikelihood(divergence, given, x0, t));
    } else {
      teacherMse = meanFlat(tf.square(tf.sub(student, frozen)));
      distillation = tf.clone(teacherMse);
    }
    const loss = tf.add(tf.mul(distillation, alpha), tf.mul(truth.loss, 1 - alpha)) as tf.Tensor1D;
    return { mse: truth.mse ?? tf.clone(truth.loss), groundTruth: truth.loss, teacherMse, distillation, loss };
  });
}

/** What {@link velocityDistillationTerms} compares. */
export interface VelocityDistillationInputs {
  /** Outputs of the models for the same point on the path. */
  student: tf.Tensor;
  teacher: tf.Tensor;
  /** Clean data. */
  data: tf.Tensor;
  /** Times in [0, 1]. */
  t: ArrayLike<number>;
  noise: tf.Tensor;
}

/**
 * Output distillation for a transport: the student's prediction follows the teacher's and the truth, whatever it is of.
 * The paper recovers SiT with it (table 2), and says no more of the loss than of DiT's.
 * @throws ShapeError where an output is not shaped like the data
 */
export function velocityDistillationTerms(transport: Transport, { student, teacher, data, t, noise }: VelocityDistillationInputs, { alpha = 0.9 }: DistillationOptions = {}): DistillationTerms {
  for (const [of, output] of [['student', student], ['teacher', teacher]] as const) if (String(output.shape) !== String(data.shape)) throw new ShapeError(`the ${of}'s output`, output.shape, data.shape.join(', '));
  return tf.tidy(() => {
    const { loss: groundTruth } = transport.lossTerms(student, data, t, noise);
    const teacherMse = meanFlat(tf.square(tf.sub(student, stopGradient(teacher))));
    const loss = tf.add(tf.mul(teacherMse, alpha), tf.mul(groundTruth, 1 - alpha)) as tf.Tensor1D;
    return { mse: tf.clone(groundTruth), groundTruth, teacherMse, distillation: tf.clone(teacherMse), loss };
  });
}

import { type LongTaskOptions, type RngState, createRng, restoreRng } from '@tinyfusion/core';
import type { BatchPosition } from '@tinyfusion/data';
import { DiT, type DiTConfig, MAR, type MARConfig, SiT } from '@tinyfusion/models';
import { recomputing } from '@tinyfusion/nn';
import { AdamW, Ema, cosine, singleCollective, withWarmUp } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { checkCount, checkDecay, checkOneOf, checkPositive } from './check-options.js';
import { type Checkpointing, keeping } from './checkpointing.js';
import type { LatentDataset } from './latents.js';
import { type Shared, optimise, rowsOfRank } from './loop.js';
import { type Prunable, objectiveOf } from './objective.js';

/**
 * Trains a class-conditional DiT, SiT or MAR on latents, each by its reference's objective, with label dropout and EMA.
 *
 * Command: `tinyfusion train --data <idx folder>`, `tinyfusion train --family SiT`.
 * Cost: about 0.35 s a step of 64 images on one core.
 */

/** The embedded teacher: 12 blocks of width 96 over 16 tokens. */
export const fashionTeacher: DiTConfig = { inputSize: 8, patchSize: 2, inChannels: 4, hiddenSize: 96, depth: 12, numHeads: 4, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 10, learnSigma: true };

/** The embedded MAR: 6 + 6 blocks of the same width over the same tokens. */
export const fashionMar: MARConfig = { inputSize: 8, patchSize: 2, inChannels: 4, encoderWidth: 96, encoderDepth: 6, encoderHeads: 4, decoderWidth: 96, decoderDepth: 6, decoderHeads: 4, mlpRatio: 4, normEpsilon: 1e-6, numClasses: 10, bufferSize: 4, headDepth: 3, headWidth: 128, maskRatioMin: 0.7, labelDropProb: 0.1, attentionDropout: 0, projectionDropout: 0, diffusionBatchMul: 4 };

/** Models that {@link train} makes, by family. */
export interface Families {
  DiT: DiT;
  SiT: SiT;
  MAR: MAR;
}

export interface TrainOptions<F extends keyof Families = 'DiT'> extends LongTaskOptions, Shared, Checkpointing<Families[F]> {
  /** Default `'DiT'`. */
  family?: F;
  /** Default: that of the embedded teacher of the family. */
  config?: F extends 'MAR' ? MARConfig : DiTConfig;
  /** Default 20,000. */
  steps?: number;
  /** Default 64. */
  batchSize?: number;
  /** Parts of a batch that are computed one after another, with the mean of their gradients: less memory at a time. Default 1; more where memory does not do. */
  parts?: number | undefined;
  /** Whether a block is computed a second time for its gradient instead of keeping all that it made: less memory for one more forward pass: a gradient of the embedded teacher takes 1.4 times as long. Default `false`. */
  recompute?: boolean | undefined;
  /** Peak learning rate after 200 steps of warm-up; a cosine takes it to a tenth. Default 1e-3, as suits this width (DiT: 1e-4 constant). */
  lr?: number;
  /** Default 0.9995 with warm-up (DiT: 0.9999, for 400,000 steps and more). */
  emaDecay?: number;
  seed: number;
}

/** Returns the model with its averaged weights. @throws ArgumentError where an option is out of its range; TinyFusionError `DIVERGED` where losses are not finite */
export async function train<F extends keyof Families = 'DiT'>(data: LatentDataset, options: TrainOptions<F>): Promise<Families[F]> {
  const { family = 'DiT', config, steps = 20_000, batchSize = 64, parts, recompute = false, lr = 1e-3, emaDecay = 0.9995, seed, signal, onProgress, collective, ...checkpointing } = options;
  checkCount('TrainOptions.steps', steps);
  checkCount('TrainOptions.batchSize', batchSize);
  checkPositive('TrainOptions.lr', lr);
  checkDecay('TrainOptions.emaDecay', emaDecay);
  checkOneOf('TrainOptions.family', family, ['DiT', 'SiT', 'MAR']);
  const rng = createRng(seed);
  const rows = rowsOfRank(collective ?? singleCollective(), batchSize);
  let batches = data.batches(batchSize, rng.split('data'), rows);
  const init = rng.split('weights');
  const model: Prunable = family === 'MAR' ? new MAR((config as MARConfig | undefined) ?? fashionMar, { init }) : new (family === 'SiT' ? SiT : DiT)((config as DiTConfig | undefined) ?? fashionTeacher, { init });
  const objective = objectiveOf(model);
  const parameters = model.parameters();
  const optimizer = new AdamW(parameters);
  const ema = new Ema(parameters, { decay: emaDecay, warmUp: true });
  let draws = rng.split('noise');
  try {
    await optimise(
      (_, report, part) => {
        const draw = objective.draw(model, batches.next(part), draws, part);
        const terms = draw.terms(draw.forward(model, recompute ? { hook: recomputing() } : {}));
        report('mse', tf.mean(terms.mse));
        return tf.mean(terms.loss);
      },
      {
        task: 'train',
        steps,
        groups: [{ parameters, optimizer, lr: withWarmUp(cosine({ from: lr, to: lr / 10, steps }), 200) }],
        ema,
        streams: {
          save: (): Streams => ({ data: batches.position(), noise: draws.state() }),
          restore: (saved: object) => {
            const { data: position, noise } = saved as Streams;
            batches = data.batches(batchSize, position, rows);
            draws = restoreRng(noise);
          },
        },
        beforeStep: () => batches.ready?.(),
        micro: { batchSize, parts },
        keep: keeping(checkpointing, () => model as Families[F], ema),
        collective,
        signal,
        onProgress,
      },
    );
    ema.swap();
    return model as Families[F];
  } catch (error) {
    model.dispose();
    throw error;
  } finally {
    ema.dispose();
    optimizer.dispose();
  }
}

/** Positions of everything random in a run. */
interface Streams {
  data: BatchPosition;
  noise: RngState;
}

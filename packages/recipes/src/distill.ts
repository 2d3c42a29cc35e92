import { type LongTaskOptions, type RngState, createRng, restoreRng } from '@tinyfusion/core';
import type { BatchPosition } from '@tinyfusion/data';
import { type FeatureDecay, FeatureGuard, type FeatureGuardState, type LayerPair, decayingWeight, layerFeatureLosses } from '@tinyfusion/distill';
import { AdamW, Ema, cosine, singleCollective } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { type Checkpointing, keeping } from './checkpointing.js';
import type { LatentDataset } from './latents.js';
import { type Shared, optimise, rowsOfRank } from './loop.js';
import { type Objective, type Prunable, objectiveOf } from './objective.js';
import { captureOverStacks, evenMapOverStacks } from './stacks.js';

/**
 * Recovers a shallow model by distillation from its teacher: noise and variance follow the teacher's and the truth, and
 * hidden states follow the teacher's where neither is a massive activation (paper, section 3.4; masked RepKD).
 *
 * Command: `tinyfusion distill --student … --teacher …`.
 * Cost: a step of training the student and a forward pass of the teacher.
 */

export interface DistillOptions<M = Prunable> extends LongTaskOptions, Shared, Checkpointing<M> {
  /** Paper: 100,000 to 500,000. */
  steps: number;
  /** Default 64 (paper: 256). */
  batchSize?: number;
  /** Parts of a batch that are computed one after another, with the mean of their gradients: less memory at a time. Default 1; more where memory does not do. */
  parts?: number | undefined;
  /** First learning rate; a cosine takes it to half. Default 2e-4, the paper's. */
  lr?: number;
  /** Weight of the teacher against the truth. Default 0.9. */
  alpha?: number;
  /** First weight of the feature loss, decaying to 0. Default 0.01; 0 leaves features out. */
  beta?: number;
  /** k of the mask: activations at k standard deviations or more are left out. Default 2; `Infinity` masks none. */
  sigmas?: number;
  /** Whose mask counts, see `maskedFeatureLoss`. Default `'official'`. */
  mode?: 'official' | 'intersection';
  /** How the feature loss fades. Default `'linear'`. */
  decay?: FeatureDecay;
  /** How many times its typical value the feature loss of a layer may be, some steps in a row, before the run ends. Default 20; `Infinity`: no guard. */
  guard?: number;
  /** Default: every block of the student with the teacher's at the same relative depth of its stack; i → 2i + 1 at half the depth. */
  layerMap?: readonly LayerPair[];
  /** Default 0.9999 with warm-up. */
  emaDecay?: number;
  /** How the models are trained. Default: as their reference trains them. */
  objective?: Objective<M>;
  seed: number;
}

/** (step, mean squared error against the true noise) and (step, whole loss). */
export interface RecoveryCurves {
  mse: [number, number][];
  loss: [number, number][];
}

/**
 * Trains the student in place; it ends with its averaged weights.
 * @throws TinyFusionError `FEATURE_EXPLOSION` that names the layer whose feature loss explodes
 */
export async function distill<M extends Prunable>(student: M, teacher: M, data: LatentDataset, options: DistillOptions<M>): Promise<RecoveryCurves> {
  const { steps, batchSize = 64, parts, lr = 2e-4, alpha = 0.9, beta = 0.01, sigmas = 2, mode = 'official', decay = 'linear', guard = 20, layerMap = evenMapOverStacks(teacher, student), emaDecay = 0.9999, objective = objectiveOf(student), seed, signal, onProgress, onDetail, collective, resume, checkpoint } = options;
  const rng = createRng(seed);
  const rows = rowsOfRank(collective ?? singleCollective(), batchSize);
  let batches = data.batches(batchSize, rng.split('data'), rows);
  let draws = rng.split('noise');
  const parameters = student.parameters();
  const optimizer = new AdamW(parameters);
  const ema = new Ema(parameters, { decay: emaDecay, warmUp: true });
  const curves: RecoveryCurves = { mse: [], loss: [] };
  const pairs = beta > 0 ? layerMap : [];
  const watcher = guard === Infinity || pairs.length === 0 ? undefined : new FeatureGuard(pairs, { factor: guard });
  try {
    await optimise(
      (step, report, part) => {
        // one draw for both: a teacher that sees another label teaches something else
        const draw = objective.draw(student, batches.next(part), draws, part);
        const [own, theirs] = [captureOverStacks(student, pairs.map(([s]) => s)), captureOverStacks(teacher, pairs.map(([, l]) => l))];
        const terms = draw.distillation(draw.forward(student, { hook: own.hook }), draw.forward(teacher, { hook: theirs.hook }), alpha);
        report('mse', tf.mean(terms.mse));
        const loss = tf.mean(terms.loss) as tf.Scalar;
        if (pairs.length === 0) return loss;
        const [mine, wanted] = [own.take(), theirs.take()];
        const layers = tf.stack(layerFeatureLosses(pairs.map(([s]) => mine.get(s)!), pairs.map(([, l]) => wanted.get(l)!), { sigmas, mode }).map((term) => tf.mean(term))) as tf.Tensor1D;
        report('activation', tf.tidy(() => tf.stack(pairs.map(([s]) => tf.max(tf.abs(mine.get(s)!)))) as tf.Tensor1D));
        tf.dispose([...mine.values(), ...wanted.values()]);
        const feature = tf.mean(layers) as tf.Scalar;
        report('feature', feature);
        if (watcher !== undefined) report('layer', layers);
        return tf.add(loss, tf.mul(feature, decayingWeight(beta, step, steps, { decay })));
      },
      {
        task: 'recover',
        steps,
        groups: [{ parameters, optimizer, lr: cosine({ from: lr, to: lr / 2, steps }) }],
        ema,
        streams: {
          save: (): Streams => ({ data: batches.position(), noise: draws.state() }),
          restore: (saved: object) => {
            const { data: position, noise } = saved as Streams;
            batches = data.batches(batchSize, position, rows);
            draws = restoreRng(noise);
          },
        },
        history: {
          save: (): History => ({ curves, guard: watcher?.state() }),
          restore: (saved: object) => {
            const { curves: earlier, guard: seen } = saved as History;
            Object.assign(curves, earlier);
            if (seen !== undefined) watcher?.restore(seen);
          },
        },
        // thresholds of the feature mask are those of the part then
        beforeStep: () => batches.ready?.(),
        micro: { batchSize, parts },
        keep: keeping({ resume, checkpoint }, () => student, ema),
        collective,
        signal,
        onProgress,
        onDetail,
        afterStep: (step, values) => {
          curves.mse.push([step + 1, values['mse']!]);
          curves.loss.push([step + 1, values['loss']!]);
          // a step that is not finite is skipped; what leads there is named
          if (Number.isFinite(values['loss'])) watcher?.watch(step + 1, pairs.map((_, i) => values[`layer ${i}`]!));
        },
      },
    );
    ema.swap();
  } finally {
    optimizer.dispose();
    ema.dispose();
  }
  return curves;
}

interface Streams {
  data: BatchPosition;
  noise: RngState;
}

interface History {
  curves: RecoveryCurves;
  guard: FeatureGuardState | undefined;
}

import { ArgumentError, type LongTaskOptions, type RngState, createRng, restoreRng } from '@tinyfusion/core';
import type { BatchPosition } from '@tinyfusion/data';
import { type FeatureDecay, FeatureGuard, type FeatureGuardState, type LayerPair, decayingWeight, layerFeatureLosses } from '@tinyfusion/distill';
import { composeHooks, recomputing } from '@tinyfusion/nn';
import { AdamW, Ema, cosine, singleCollective } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { checkCount, checkDecay, checkFrom0, checkOneOf, checkPositive } from './check-options.js';
import { checkUnpacked } from './check-unpacked.js';
import { type Checkpointing, keeping } from './checkpointing.js';
import type { LatentDataset } from './latents.js';
import { type Shared, optimise, rowsOfRank } from './loop.js';
import { type Objective, type Prunable, objectiveOf } from './objective.js';
import { captureOverStacks, depthOf, evenMapOverStacks, widthsOf } from './stacks.js';

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
  /** Whether a block is computed a second time for its gradient instead of keeping all that it made: less memory for one more forward pass: a gradient of the embedded teacher takes 1.4 times as long. Default `false`. */
  recompute?: boolean | undefined;
  /** First learning rate; a cosine takes it to half. Default 2e-4, the paper's. */
  lr?: number;
  /** Weight of the teacher against the truth, from 0 to 1. Default 0.9. */
  alpha?: number;
  /** First weight of the feature loss, decaying to 0. Default 0.01; 0 leaves features out. */
  beta?: number;
  /** k of the mask: activations at k standard deviations or more are left out. Default 2; `Infinity` masks none. */
  sigmas?: number;
  /** Whose mask counts, see `maskedFeatureLoss`. Default `'official'`. */
  mode?: 'official' | 'intersection';
  /** How the feature loss fades. Default `'linear'`. */
  decay?: FeatureDecay;
  /** How many times the lowest median so far the feature loss of a layer may be, some steps in a row, before the run ends. Default 20; `Infinity`: no guard. */
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
 * @throws TinyFusionError `FEATURE_EXPLOSION` that names the layer whose feature loss explodes, `DIVERGED` where losses are
 * not finite; ArgumentError, before anything is made, where options, models and data do not fit
 */
export async function distill<M extends Prunable>(student: M, teacher: M, data: LatentDataset, options: DistillOptions<M>): Promise<RecoveryCurves> {
  const { steps, batchSize = 64, parts, recompute = false, lr = 2e-4, alpha = 0.9, beta = 0.01, sigmas = 2, mode = 'official', decay = 'linear', guard = 20, layerMap, emaDecay = 0.9999, objective = objectiveOf(student), seed, signal, onProgress, onDetail, collective, resume, checkpoint } = options;
  checkCount('DistillOptions.steps', steps);
  checkCount('DistillOptions.batchSize', batchSize);
  checkPositive('DistillOptions.lr', lr);
  checkFrom0('DistillOptions.alpha', alpha, 1);
  checkFrom0('DistillOptions.beta', beta);
  checkOneOf('DistillOptions.mode', mode, ['official', 'intersection']);
  checkOneOf('DistillOptions.decay', decay, ['linear', 'cosine', 'constant']);
  if (!(sigmas > 0)) throw new ArgumentError('DistillOptions.sigmas', sigmas, 'more than 0; Infinity for no mask');
  checkDecay('DistillOptions.emaDecay', emaDecay);
  checkPair(student, teacher, data);
  checkUnpacked('distill: student', student);
  const pairs = beta > 0 ? (layerMap ?? evenMapOverStacks(teacher, student)) : [];
  if (pairs.length > 0) checkMap(student, teacher, pairs);
  const watcher = guard === Infinity || pairs.length === 0 ? undefined : new FeatureGuard(pairs, { factor: guard });
  const rng = createRng(seed);
  const rows = rowsOfRank(collective ?? singleCollective(), batchSize);
  let batches = data.batches(batchSize, rng.split('data'), rows);
  let draws = rng.split('noise');
  const parameters = student.parameters();
  const optimizer = new AdamW(parameters);
  const ema = new Ema(parameters, { decay: emaDecay, warmUp: true });
  const curves: RecoveryCurves = { mse: [], loss: [] };
  const byPair = (values: Readonly<Record<string, number>>, name: string): number[] => pairs.map((_, i) => values[`${name} ${i}`]!);
  // nobody asks for a teacher's gradients: it is not computed again, and keeps nothing for them
  const unkept = recomputing();
  try {
    await optimise(
      (step, report, part) => {
        // one draw for both: a teacher that sees another label teaches something else
        const draw = objective.draw(student, batches.next(part), draws, part);
        const [own, theirs] = [captureOverStacks(student, pairs.map(([s]) => s)), captureOverStacks(teacher, pairs.map(([, l]) => l))];
        try {
          const terms = draw.distillation(draw.forward(student, { hook: composeHooks(own.hook, recompute ? recomputing() : undefined) }), draw.forward(teacher, { hook: composeHooks(theirs.hook, unkept) }), alpha);
          report('mse', tf.mean(terms.mse));
          const loss = tf.mean(terms.loss) as tf.Scalar;
          if (pairs.length === 0) return loss;
          const [mine, wanted] = [own.take(), theirs.take()];
          try {
            const [states, followed] = [pairs.map(([s]) => mine.get(s)!), pairs.map(([, l]) => wanted.get(l)!)];
            const layers = meanOfEach(layerFeatureLosses(states, followed, { sigmas, mode }));
            report('activation', tf.tidy(() => tf.stack(states.map((state) => tf.max(tf.abs(state)))) as tf.Tensor1D));
            const feature = tf.mean(layers) as tf.Scalar;
            report('feature', feature);
            report('layer', layers);
            // the distance to nothing: what the guard measures explosions by
            if (watcher?.hasEnergies === false) report('energy', meanOfEach(layerFeatureLosses(followed.map((state) => tf.zerosLike(state)), followed, { sigmas, mode: 'official' })));
            return tf.add(loss, tf.mul(feature, decayingWeight(beta, step, steps, { decay })));
          } finally {
            tf.dispose([...mine.values(), ...wanted.values()]);
          }
        } finally {
          // empty but where a model threw
          tf.dispose([...own.take().values(), ...theirs.take().values()]);
        }
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
          if (Number.isFinite(values['loss'])) watcher?.watch(step + 1, byPair(values, 'layer'), watcher.hasEnergies ? undefined : byPair(values, 'energy'));
        },
        explain: (step, values) => new FeatureGuard(pairs).check(step, byPair(values, 'layer'))?.message,
      },
    );
    ema.swap();
  } finally {
    optimizer.dispose();
    ema.dispose();
  }
  return curves;
}

/** [mean of each], with its gradient. */
const meanOfEach = (terms: readonly tf.Tensor1D[]): tf.Tensor1D => tf.stack(terms.map((term) => tf.mean(term))) as tf.Tensor1D;

/** @throws ArgumentError where a teacher cannot teach a student on these data */
function checkPair(student: Prunable, teacher: Prunable, { shape }: LatentDataset): void {
  if (student.constructor !== teacher.constructor) throw new ArgumentError('distill: student', student.constructor.name, `a ${teacher.constructor.name} as its teacher`);
  const [own, theirs] = [student.config, teacher.config];
  for (const key of ['inputSize', 'inChannels', 'numClasses'] as const) if (own[key] !== theirs[key]) throw new ArgumentError(`distill: student's ${key}`, own[key], `${theirs[key]}, the teacher's`);
  if ('learnSigma' in own && 'learnSigma' in theirs && own.learnSigma !== theirs.learnSigma) throw new ArgumentError("distill: student's learnSigma", own.learnSigma, `${theirs.learnSigma}, the teacher's: both learn the variance, or neither`);
  const wanted = [own.inputSize, own.inputSize, own.inChannels];
  if (String(shape) !== String(wanted)) throw new ArgumentError('distill: data', shape.join('×'), `latents of ${wanted.join('×')}, as the models take`);
}

/** @throws ArgumentError where layers that should follow each other are not there, or of other widths */
function checkMap(student: Prunable, teacher: Prunable, pairs: readonly LayerPair[]): void {
  const [depth, from] = [depthOf(student), depthOf(teacher)];
  const [own, theirs] = [widthsOf(student), widthsOf(teacher)];
  if (student.config.patchSize !== teacher.config.patchSize) throw new ArgumentError("distill: student's patchSize", student.config.patchSize, `${teacher.config.patchSize}, the teacher's, whose states it follows; beta 0 leaves features out`);
  for (const pair of pairs) {
    const [s, t] = pair;
    if (!(Number.isInteger(s) && s >= 0 && s < depth && Number.isInteger(t) && t >= 0 && t < from)) throw new ArgumentError('DistillOptions.layerMap', pair, `pairs of a student's layer from 0 to ${depth - 1} and a teacher's from 0 to ${from - 1}`);
    if (own[s] !== theirs[t]) throw new ArgumentError(`distill: width of the student's layer ${s}`, own[s], `${theirs[t]}, that of the teacher's layer ${t}, whose states it follows; beta 0 leaves features out`);
  }
}

interface Streams {
  data: BatchPosition;
  noise: RngState;
}

interface History {
  curves: RecoveryCurves;
  guard: FeatureGuardState | undefined;
}

import { ArgumentError, type LongTaskOptions, type RngState, createRng, restoreRng } from '@tinyfusion/core';
import type { BatchPosition } from '@tinyfusion/data';
import { injectLora } from '@tinyfusion/lora';
import { composeHooks, recomputing } from '@tinyfusion/nn';
import { type Decision, DecisionHistory, type DecisionRow, type GateSchedule, type GroupScheme, type BatchDraw, LayerGates, RunningBaseline, type ScoresOptions, type StopOptions, decide, defaultScaling, defaultTau, scoreFunction } from '@tinyfusion/sampler';
import { AdamW, Ema, constant, singleCollective } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { checkUnpacked } from './check-unpacked.js';
import { checkCount, checkDecay, checkOneOf } from './check-options.js';
import { type Checkpointing, keeping } from './checkpointing.js';
import type { LatentDataset } from './latents.js';
import { checkRate } from './learning-rate.js';
import { type Shared, optimise, rowsOf, rowsOfRank } from './loop.js';
import { type Objective, type Prunable, objectiveOf } from './objective.js';
import { depthOf, gatesOverStacks, skippingOverStacks } from './stacks.js';

/**
 * Learns which layers to keep (paper, section 3): masks are drawn for each sample by Gumbel-softmax over the gates of
 * N:M groups, while low-rank adapters stand in for the fine-tuning to come. What is minimised is the diffusion loss
 * after that fine-tuning, not right after the cut.
 *
 * Command: `tinyfusion learn-masks --groups 1:2`.
 * Cost: one forward and backward pass of the whole model a step.
 */

export interface LearnMasksOptions<M = Prunable> extends LongTaskOptions, Shared, Checkpointing<Decision> {
  /** Default `'1:2'`. */
  groups?: GroupScheme;
  /** Paper: 10,000. */
  steps: number;
  /** Default 64 (paper: 128). */
  batchSize?: number;
  /** Parts of a batch that are computed one after another, with the mean of their gradients: less memory at a time. Default 1; more where memory does not do. */
  parts?: number | undefined;
  /** Whether a block is computed a second time for its gradient instead of keeping all that it made: less memory for one more forward pass: a gradient of the embedded teacher takes 1.4 times as long. Default `false`. */
  recompute?: boolean | undefined;
  /** Learning rate of what is co-optimised. Default 1e-4, the reference's. */
  lr?: number;
  /** Learning rate of the gates. Default ten times `lr`, as the reference. */
  gateLr?: number;
  /** What moves beside the gates: adapters, all weights (a copy must be given), or nothing. Default `'lora'`. */
  update?: 'lora' | 'full' | 'frozen';
  /** Rank of the adapters. Default 8. */
  rank?: number;
  /** Default 4 → 0.1, linear. */
  tau?: GateSchedule;
  /** Default 100 throughout. */
  scaling?: GateSchedule;
  /** Decay of the averaged gates that decide. Default 0.999 with warm-up. */
  emaDecay?: number;
  /**
   * `'sample'`: a mask for each sample, as the reference, and every block is computed. `'batch'`: one mask a step, and the
   * blocks it drops are not computed, for about half the time. Default `'sample'`.
   */
  per?: 'sample' | 'batch';
  /**
   * With `per: 'batch'`, how gates learn of blocks that were not computed: not at all (biased, little noise), or by the
   * losses of whole draws (unbiased, noisy). See `skippingHook` and `scoreFunction`. Default `'straight-through'`.
   */
  estimator?: 'straight-through' | 'score-function';
  /** Scores of another criterion, one a layer, that the gates start from: a warm start. Default: a uniform choice. */
  warmStart?: { scores: readonly number[] } & ScoresOptions;
  /** Ends learning when the decision is sure and has stood for long enough. Default: all steps are taken. */
  stop?: StopOptions;
  /** How the model is trained. Default: as its reference trains it. */
  objective?: Objective<M>;
  seed: number;
}

/** What was learned. */
export interface LearnedMasks {
  decision: Decision;
  history: DecisionHistory;
  /** (step, loss under sampled masks). */
  losses: [number, number][];
}

/**
 * The teacher is left as it was, but for `update: 'full'`.
 * @throws ArgumentError, before anything is made, where an option is out of its range; TinyFusionError `DIVERGED` where losses are not finite
 */
export async function learnMasks<M extends Prunable>(teacher: M, data: LatentDataset, options: LearnMasksOptions<M>): Promise<LearnedMasks> {
  const { groups = '1:2', steps, batchSize = 64, parts, recompute = false, lr = 1e-4, gateLr = 10 * lr, update = 'lora', rank = 8, tau = defaultTau, scaling = defaultScaling, emaDecay = 0.999, per = 'sample', estimator = 'straight-through', warmStart, stop, objective = objectiveOf(teacher), seed, signal, onProgress, onDetail, collective, resume, checkpoint } = options;
  checkCount('LearnMasksOptions.steps', steps);
  checkCount('LearnMasksOptions.batchSize', batchSize);
  checkCount('LearnMasksOptions.rank', rank);
  checkDecay('LearnMasksOptions.emaDecay', emaDecay);
  checkOneOf('LearnMasksOptions.update', update, ['lora', 'full', 'frozen']);
  checkOneOf('LearnMasksOptions.per', per, ['sample', 'batch']);
  checkOneOf('LearnMasksOptions.estimator', estimator, ['straight-through', 'score-function']);
  checkRate('lr', lr);
  checkRate('gateLr', gateLr);
  if (update === 'full') checkUnpacked('learnMasks: model', teacher);
  const rng = createRng(seed);
  const rows = rowsOfRank(collective ?? singleCollective(), batchSize);
  const depth = depthOf(teacher);
  if (warmStart !== undefined && warmStart.scores.length !== depth) throw new ArgumentError('warmStart.scores', warmStart.scores.length, `one for each of the ${depth} layers`);
  let batches = data.batches(batchSize, rng.split('data'), rows);
  const gates = warmStart === undefined ? new LayerGates(groups, depth) : LayerGates.fromScores(groups, warmStart.scores, warmStart);
  let [draws, gumbel] = [rng.split('noise'), rng.split('gumbel')];
  const adapters = update === 'lora' ? injectLora(teacher, { init: rng.split('adapters'), rank }) : undefined;
  const weights = update === 'full' ? teacher.parameters() : (adapters?.parameters() ?? []);
  const [weightOptimizer, gateOptimizer] = [new AdamW(weights), new AdamW(gates.parameters())];
  const ema = new Ema(gates.parameters(), { decay: emaDecay, warmUp: true });
  let history = new DecisionHistory();
  let losses: [number, number][] = [];
  const every = Math.max(1, Math.floor(steps / 100));
  let last = steps - 1;
  const baseline = new RunningBaseline();
  let chosen: BatchDraw | undefined;
  const decided = async (step: number): Promise<Decision> => decide(gates.groups, (await Promise.all(ema.averages().map((g) => g.data()))) as Float32Array[], scaling(step, steps));
  try {
    await optimise(
      (step, _report, part) => {
        const size = part?.size ?? batchSize;
        const hook = chosen === undefined ? gatesOverStacks(teacher, gates.sample(batchSize, { tau: tau(step, steps), scaling: scaling(step, steps), rng: gumbel }).masks.map((mask) => rowsOf(mask, part))) : skippingOverStacks(teacher, chosen.kept, estimator === 'score-function' ? undefined : chosen.masks(size));
        const draw = objective.draw(teacher, batches.next(part), draws, part);
        const loss = tf.mean(draw.terms(draw.forward(teacher, { hook: recompute ? composeHooks(hook, recomputing()) : hook })).loss) as tf.Scalar;
        return chosen === undefined || estimator !== 'score-function' ? loss : scoreFunction(loss, chosen.logProbability(), baseline.value);
      },
      {
        task: 'learn masks',
        steps,
        groups: [
          { parameters: weights, optimizer: weightOptimizer, lr: constant(lr) },
          { parameters: gates.parameters(), optimizer: gateOptimizer, lr: constant(gateLr) },
        ],
        ema,
        streams: {
          save: (): Streams => ({ data: batches.position(), noise: draws.state(), gumbel: gumbel.state() }),
          restore: (saved: object) => {
            const streams = saved as Streams;
            batches = data.batches(batchSize, streams.data, rows);
            [draws, gumbel] = [restoreRng(streams.noise), restoreRng(streams.gumbel)];
          },
        },
        history: {
          save: (): History => ({ rows: history.rows, losses, baseline: baseline.value ?? null }),
          restore: (saved: object) => {
            const earlier = saved as History;
            history = new DecisionHistory(earlier.rows);
            losses = earlier.losses;
            last = losses.length - 1;
            baseline.restore(earlier.baseline ?? undefined);
          },
        },
        micro: { batchSize, parts },
        keep: keeping({ resume, checkpoint }, () => decided(last)),
        collective,
        signal,
        onProgress,
        beforeStep: async (step) => {
          await batches.ready?.();
          if (per === 'batch') chosen = await gates.sampleForBatch({ tau: tau(step, steps), scaling: scaling(step, steps), rng: gumbel });
        },
        afterStep: async (step, { loss }) => {
          baseline.update(loss!);
          losses.push([step + 1, loss!]);
          last = step;
          if ((step + 1) % every !== 0) return undefined;
          history.record(step + 1, await decided(step));
          const { kept, inclusion } = history.rows.at(-1)!;
          if ((collective?.rank ?? 0) === 0) onDetail?.(step + 1, Object.fromEntries(inclusion.flatMap((p, i) => [[`gate ${i}`, p], [`keep ${i}`, kept.includes(i) ? 1 : 0]])));
          return stop !== undefined && history.shouldStop(stop) ? 'stop' : undefined;
        },
      },
    );
    return { decision: await decided(last), history, losses };
  } finally {
    adapters?.remove();
    weightOptimizer.dispose();
    gateOptimizer.dispose();
    ema.dispose();
    gates.dispose();
  }
}

interface Streams {
  data: BatchPosition;
  noise: RngState;
  gumbel: RngState;
}

interface History {
  rows: DecisionRow[];
  losses: [number, number][];
  baseline: number | null;
}

import { ArgumentError, type LongTaskOptions, type RngState, createRng, restoreRng } from '@tinyfusion/core';
import type { BatchPosition } from '@tinyfusion/data';
import { injectLora } from '@tinyfusion/lora';
import type { DiT } from '@tinyfusion/models';
import { type CostTable, measureBlocks } from '@tinyfusion/pruning';
import { type BranchDecision, BranchGates, type GateSchedule, branchCosts, branchDecision, branchGateHook, defaultScaling, defaultTau, expectedCost } from '@tinyfusion/sampler';
import { AdamW, Ema, broadcastJson, constant, singleCollective, trainingProgress } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { type Checkpointing, keeping } from './checkpointing.js';
import type { LatentDataset } from './latents.js';
import { type Shared, optimise, rowsOf, rowsOfRank } from './loop.js';
import { type Objective, objectiveOf } from './objective.js';

/**
 * Learns which attention and which MLP branches to keep, for a model that is as much faster on the device at hand as one
 * asks for: finer than the paper, which names it as future work. Branches are timed first; their expected time joins the
 * loss where it is above the budget, and the decision keeps to the budget exactly.
 *
 * Cost: a few seconds of timing, then one forward and backward pass of the whole model a step.
 */
export interface LearnBranchesOptions extends LongTaskOptions, Shared, Checkpointing<BranchDecision> {
  /** How many times as fast a forward pass is to be, e.g. 1.4. */
  faster: number;
  steps: number;
  /** Default 64. It is also the batch that is timed. */
  batchSize?: number;
  /** Parts of a batch that are computed one after another, with the mean of their gradients: less memory at a time. Default 1; more where memory does not do. */
  parts?: number | undefined;
  /** Learning rate of the adapters. Default 1e-4. */
  lr?: number;
  /** Learning rate of the gates. Default ten times `lr`. */
  gateLr?: number;
  /** Weight of the share by which the expected time is above the budget. Default 1. */
  costWeight?: number;
  /** Default 4 → 0.1, linear. */
  tau?: GateSchedule;
  /** Default 100 throughout. */
  scaling?: GateSchedule;
  /** Measured before, e.g. on another device. Default: measured here, by rank 0 where there are several; a run that goes on keeps what it measured. */
  costs?: CostTable;
  objective?: Objective<DiT>;
  seed: number;
}

/** What was learned. */
export interface LearnedBranches {
  /** `branchMaskHook(decision.droppedBranches)` runs it. */
  decision: BranchDecision;
  costs: CostTable;
  /** What the decision makes of the model by the table: times as fast as the whole one. */
  faster: number;
  losses: [number, number][];
}

/**
 * The teacher is left as it was.
 * @throws ArgumentError where the model cannot be made that fast, with how fast it can
 */
export async function learnBranches(teacher: DiT, data: LatentDataset, options: LearnBranchesOptions): Promise<LearnedBranches> {
  const { faster, steps, batchSize = 64, parts, lr = 1e-4, gateLr = 10 * lr, costWeight = 1, tau = defaultTau, scaling = defaultScaling, objective = objectiveOf(teacher), seed, signal, onProgress, collective = singleCollective(), resume, checkpoint } = options;
  if (!(faster > 1)) throw new ArgumentError('faster', faster, 'more than 1, e.g. 1.4 for a model 1.4 times as fast');
  const depth = teacher.blocks.length;
  const rng = createRng(seed);
  const rows = rowsOfRank(collective, batchSize);
  let batches = data.batches(batchSize, rng.split('data'), rows);
  let [draws, gumbel] = [rng.split('noise'), rng.split('gumbel')];
  const measured = async (): Promise<CostTable> => (resume === undefined ? undefined : trainingProgress<{ history: History }>(resume).history.costs) ?? timed(teacher, batchSize, { signal, onProgress });
  const costs = options.costs ?? (await broadcastJson(collective, collective.rank === 0 ? await measured() : undefined))!;
  const units = branchCosts(costs);
  const whole = costs.rest + costs.blocks.reduce((a, b) => a + b, 0);
  const all = units.reduce((a, b) => a + b, 0);
  const fixed = Math.max(0, whole - all);
  const budget = whole / faster - fixed;
  if (!(budget >= 0)) throw new ArgumentError('faster', faster, `at most ${(whole / fixed).toFixed(2)}: without any branch a forward pass still takes ${((100 * fixed) / whole).toFixed(0)} % of its time`);

  const gates = new BranchGates('block', depth);
  const adapters = injectLora(teacher, { init: rng.split('adapters') });
  const [weightOptimizer, gateOptimizer] = [new AdamW(adapters.parameters()), new AdamW(gates.parameters())];
  const ema = new Ema(gates.parameters(), { decay: 0.999, warmUp: true });
  let losses: [number, number][] = [];
  const decided = async (): Promise<BranchDecision> => branchDecision(gates.groups, (await Promise.all(ema.averages().map((g) => g.data()))) as Float32Array[], scaling(steps - 1, steps), { costs, budget });
  try {
    await optimise(
      (step, report, part) => {
        const s = scaling(step, steps);
        const { masks } = gates.sample(batchSize, { tau: tau(step, steps), scaling: s, rng: gumbel });
        const draw = objective.draw(teacher, batches.next(part), draws, part);
        const loss = tf.mean(draw.terms(draw.forward(teacher, { branchHook: branchGateHook(masks.map((mask) => rowsOf(mask, part))) })).loss) as tf.Scalar;
        const time = expectedCost(gates, units, { scaling: s });
        report('time', tf.div(tf.add(time, fixed), whole) as tf.Scalar);
        const above = tf.relu(tf.div(tf.sub(time, budget), Math.max(budget, 0.01 * all)));
        return tf.add(loss, tf.mul(above, costWeight));
      },
      {
        task: 'learn branches',
        steps,
        groups: [
          { parameters: adapters.parameters(), optimizer: weightOptimizer, lr: constant(lr) },
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
          save: (): History => ({ losses, costs }),
          restore: (saved: object) => void ({ losses } = saved as History),
        },
        beforeStep: () => batches.ready?.(),
        micro: { batchSize, parts },
        collective,
        keep: keeping({ resume, checkpoint }, decided),
        signal,
        onProgress,
        afterStep: (step, { loss }) => void losses.push([step + 1, loss!]),
      },
    );
    const decision = await decided();
    return { decision, costs, faster: whole / (fixed + (decision.cost ?? all)), losses };
  } finally {
    adapters.remove();
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
  losses: [number, number][];
  costs: CostTable;
}

/** What each branch takes on the present device, for a batch. */
async function timed(model: DiT, batch: number, options: LongTaskOptions): Promise<CostTable> {
  const { inputSize, inChannels } = model.config;
  const [x, t, y] = [tf.zeros<tf.Rank.R4>([batch, inputSize, inputSize, inChannels]), tf.fill([batch], 500) as tf.Tensor1D, tf.zeros<tf.Rank.R1>([batch], 'int32')];
  try {
    return await measureBlocks(model.blocks.length, (hooks) => model.forward(x, t, y, hooks), { branches: true, ...options });
  } finally {
    tf.dispose([x, t, y]);
  }
}

import { ArgumentError, type LongTaskOptions, type RngState, createRng, restoreRng } from '@tinyfusion/core';
import type { BatchPosition } from '@tinyfusion/data';
import { injectLora } from '@tinyfusion/lora';
import { type DiT, partOf } from '@tinyfusion/models';
import type { HookOptions } from '@tinyfusion/nn';
import { type CostTable, type DroppedBranches, type MeasuredSpeed, blockKinds, branchMaskHook, maskHook, measureBlocks, measureSpeed } from '@tinyfusion/pruning';
import { type BranchDecision, BranchGates, type GateSchedule, branchCosts, branchDecision, branchGateHook, defaultScaling, defaultTau, expectedCost } from '@tinyfusion/sampler';
import { AdamW, Ema, broadcastJson, constant, singleCollective, trainingProgress } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { checkCount, checkFrom0 } from './check-options.js';
import { type Checkpointing, keeping } from './checkpointing.js';
import type { LatentDataset } from './latents.js';
import { checkRate } from './learning-rate.js';
import { type Shared, optimise, rowsOf, rowsOfRank } from './loop.js';
import { type Objective, objectiveOf } from './objective.js';

/**
 * Learns which attention and which MLP branches to keep, for a model that is as much faster on the device at hand as one
 * asks for: finer than the paper, which names it as future work. Blocks and branches are timed first; their expected time
 * joins the loss where it is above the budget, and the decision keeps to the budget, and uses 95 % of it where choices can. A block that loses both
 * branches is cut whole, so all of its time counts. At the end the whole model and what is left are timed in turns, to
 * say what came of it.
 *
 * Cost: some 80 forward passes of timing, or more for 8 seconds where they are short; then one forward and backward pass of the whole model a step.
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
  /** The same as measured after the decision; absent where the costs were given, which may be another device's. */
  measured?: MeasuredSpeed;
  losses: [number, number][];
}

/**
 * The teacher is left as it was.
 * @throws ArgumentError where the model cannot be made that fast, with how fast it can; where a block has no attention or no MLP to lose
 */
export async function learnBranches(teacher: DiT, data: LatentDataset, options: LearnBranchesOptions): Promise<LearnedBranches> {
  const { faster, steps, batchSize = 64, parts, lr = 1e-4, gateLr = 10 * lr, costWeight = 1, tau = defaultTau, scaling = defaultScaling, objective = objectiveOf(teacher), seed, signal, onProgress, collective = singleCollective(), resume, checkpoint } = options;
  if (!(faster > 1)) throw new ArgumentError('faster', faster, 'more than 1, e.g. 1.4 for a model 1.4 times as fast');
  checkCount('LearnBranchesOptions.steps', steps);
  checkCount('LearnBranchesOptions.batchSize', batchSize);
  checkFrom0('LearnBranchesOptions.costWeight', costWeight);
  checkRate('lr', lr);
  checkRate('gateLr', gateLr);
  checkWholeBlocks(teacher);
  const depth = teacher.blocks.length;
  const rng = createRng(seed);
  const rows = rowsOfRank(collective, batchSize);
  let batches = data.batches(batchSize, rng.split('data'), rows);
  let [draws, gumbel] = [rng.split('noise'), rng.split('gumbel')];
  const alone = collective.size === 1 ? signal : undefined; // ranks that wait for rank 0's times cannot be told that it ended
  const timing = { repeats: 9, forMs: 4000, warmUp: 2, onProgress: collective.rank === 0 ? onProgress : undefined, signal: alone };
  const kept = async (): Promise<CostTable> => (resume === undefined ? undefined : trainingProgress<{ history: History }>(resume).history.costs) ?? onBatch(teacher, batchSize, (run) => measureBlocks(depth, run, { branches: true, kinds: blockKinds(teacher.blocks), ...timing }));
  const costs = options.costs ?? (await broadcastJson(collective, collective.rank === 0 ? await kept() : undefined))!;
  const { rest } = costs;
  const prices = branchCosts(costs);
  const all = [...prices.units, ...prices.own].reduce((a, b) => a + b, 0);
  const whole = rest + all;
  const budget = whole / faster - rest;
  const least = Math.min(...prices.units.map((cost, unit) => cost + prices.own[unit >> 1]!));
  if (!(budget >= least)) throw new ArgumentError('faster', faster, `at most ${floor(whole / (rest + least))}: with the cheapest branch alone a forward pass still takes ${((100 * (rest + least)) / whole).toFixed(0)} % of its time`);

  const gates = new BranchGates('block', depth);
  const adapters = injectLora(teacher, { init: rng.split('adapters') });
  const [weightOptimizer, gateOptimizer] = [new AdamW(adapters.parameters()), new AdamW(gates.parameters())];
  const ema = new Ema(gates.parameters(), { decay: 0.999, warmUp: true });
  let losses: [number, number][] = [];
  const decided = async (): Promise<BranchDecision> => branchDecision(gates.groups, (await Promise.all(ema.averages().map((g) => g.data()))) as Float32Array[], scaling(steps - 1, steps), { costs, budget, use: 0.95 });
  let decision: BranchDecision;
  try {
    await optimise(
      (step, report, part) => {
        const s = scaling(step, steps);
        const { masks } = gates.sample(batchSize, { tau: tau(step, steps), scaling: s, rng: gumbel });
        const draw = objective.draw(teacher, batches.next(part), draws, part);
        const loss = tf.mean(draw.terms(draw.forward(teacher, { branchHook: branchGateHook(masks.map((mask) => rowsOf(mask, part))) })).loss) as tf.Scalar;
        const time = expectedCost(gates, prices, { scaling: s });
        report('time', tf.div(tf.add(time, rest), whole) as tf.Scalar);
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
    decision = await decided();
  } finally {
    adapters.remove();
    weightOptimizer.dispose();
    gateOptimizer.dispose();
    ema.dispose();
    gates.dispose();
  }
  // the adapters are gone: this is the model that will be cut
  const speed = options.costs === undefined ? await broadcastJson(collective, collective.rank === 0 ? await onBatch(teacher, batchSize, (run) => measureSpeed(run, maskOf(decision.droppedBranches, depth), timing)) : undefined) : undefined;
  return { decision, costs, faster: whole / (rest + decision.cost!), ...(speed === undefined ? {} : { measured: speed }), losses };
}

/**
 * A model's blocks all have attention and MLP.
 * @throws ArgumentError where one has lost a branch, or is a linear layer
 */
export function checkWholeBlocks(model: DiT): void {
  const cut = model.blocks.flatMap((block, i) => {
    const part = partOf(block);
    return part === undefined ? [] : [`block ${i} ${part === 'linear' ? 'is a linear layer' : `has its ${part === 'mlp' ? 'MLP' : part} alone`}`];
  });
  if (cut.length > 0) throw new ArgumentError('learn-branches: model', cut.slice(0, 3).join(', ') + (cut.length > 3 ? `, and ${cut.length - 3} more like it` : ''), 'a model whose blocks all have attention and MLP; learn branches of the model that it was cut from, or leave out whole layers of this one with learn-masks');
}

/** Hooks under which a model runs as it will when it is cut: blocks without branches are not there. */
function maskOf(dropped: Required<DroppedBranches>, depth: number): HookOptions {
  const kept = Array.from({ length: depth }, (_, i) => i).filter((i) => !dropped.attention!.includes(i) || !dropped.mlp!.includes(i));
  return { hook: maskHook(kept, depth), branchHook: branchMaskHook(dropped) };
}

/** Two digits, never more than the value. */
const floor = (value: number): string => (Math.floor(100 * value) / 100).toFixed(2);

interface Streams {
  data: BatchPosition;
  noise: RngState;
  gumbel: RngState;
}

interface History {
  losses: [number, number][];
  costs: CostTable;
}

/** Something done with forward passes on a batch of zeros. */
async function onBatch<T>(model: DiT, batch: number, measure: (run: (hooks: HookOptions) => tf.Tensor) => Promise<T>): Promise<T> {
  const { inputSize, inChannels } = model.config;
  const [x, t, y] = [tf.zeros<tf.Rank.R4>([batch, inputSize, inputSize, inChannels]), tf.fill([batch], 500) as tf.Tensor1D, tf.zeros<tf.Rank.R1>([batch], 'int32')];
  try {
    return await measure((hooks) => model.forward(x, t, y, hooks));
  } finally {
    tf.dispose([x, t, y]);
  }
}

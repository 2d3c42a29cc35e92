import { createRng } from '@tinyfusion/core';
import { atRandom, oracle } from '@tinyfusion/pruning';
import { learnMasks } from '../learn-masks.js';
import { chooseByBlockError, chooseByBlockInfluence, chooseByCka, chooseBySensitivity, chooseByTaylor } from '../prune.js';
import type { Prunable } from '../objective.js';
import type { Study } from './study.js';
import type { Workbench } from './workbench.js';

/**
 * Ways to choose half of the layers, at equal recovery: the paper's tables 1 and 3 at small scale.
 *
 * Command: `tinyfusion study methods`, `tinyfusion study methods --family SiT`.
 * Cost: about two and a half hours on two cores. Expected: the choice with the least loss right after the cut is not the
 * one that recovers best.
 */
export const methods: Study<Prunable> = {
  name: 'methods',
  families: ['DiT', 'SiT', 'MAR'],
  title: 'Choices of layers at equal recovery',
  paper: 'loss right after the cut | FID after 100K steps without distillation: max 37.69 | NaN, median 0.99 | 6.45, min 0.20 | 20.69, Sensitivity 0.21 | 21.15, ShortGPT 0.20 | 22.28, Flux-Lite 0.85 | 25.92, oracle 1.28 | 7.43, learned 0.98 | 5.73 (table 3).',
  by: 'choice',
  columns: [['choice', 'choice'], ['seed', 'seeds'], ['kept', 'kept'], ['calibrationLoss', 'loss after the cut'], ['fid', 'FID ↓', 2], ['inceptionScore', 'IS ↑', 2], ['precision', 'precision ↑'], ['recall', 'recall ↑'], ['agreement', 'class agreement ↑']],
  async run(bench, rows) {
    await rows.once({ choice: 'teacher, all layers', seed: 0 }, async () => ({ calibrationLoss: await bench.calibrationLoss(Array.from({ length: bench.depth }, (_, i) => i)), ...(await bench.measure(bench.teacher, 0, 'measure teacher')) }));
    for (const seed of bench.sizes.seeds) {
      for (const [choice, choose] of Object.entries(choices)) {
        if (choice === 'CKA intervals' && bench.family === 'MAR') continue; // for models of one stack
        await rows.once({ choice, seed }, async () => {
          const kept = await choose(bench, seed);
          const student = await bench.recovered(kept, seed, `recover ${choice}, seed ${seed}`);
          const measures = await bench.measure(student, seed, `measure ${choice}, seed ${seed}`);
          student.dispose();
          return { kept, calibrationLoss: await bench.calibrationLoss(kept), ...measures };
        });
      }
    }
  },
};

type Choose = (bench: Workbench<Prunable>, seed: number) => Promise<number[]>;

const measured =
  (by: typeof chooseByBlockInfluence | typeof chooseByBlockError | typeof chooseBySensitivity | typeof chooseByTaylor | typeof chooseByCka): Choose =>
  async ({ teacher, data, depth, context }, seed) =>
    (await by(teacher, await data(), { count: depth / 2, seed, ...context })).kept;

/** The mask at a rank of the calibration losses, from 0, the least, to 1. */
const byLoss =
  (rank: number): Choose =>
  async (bench) => {
    const sorted = (await bench.losses()).toSorted((a, b) => a.loss - b.loss);
    return [...sorted[Math.round(rank * (sorted.length - 1))]!.kept];
  };

const choices: Readonly<Record<string, Choose>> = {
  learned: async ({ teacher, data, sizes, named }, seed) => (await learnMasks(teacher, await data(), { groups: '1:2', steps: sizes.maskSteps, lr: 1e-3, gateLr: 1e-3, seed, ...named(`learn masks, seed ${seed}`) })).decision.kept,
  ShortGPT: measured(chooseByBlockInfluence),
  'Flux-Lite': measured(chooseByBlockError),
  sensitivity: measured(chooseBySensitivity),
  Taylor: measured(chooseByTaylor),
  'CKA intervals': measured(chooseByCka),
  oracle: async ({ depth }) => oracle(depth, depth / 2),
  random: async ({ depth }, seed) => atRandom(depth, depth / 2, createRng(seed).split('random choice')),
  'least loss': byLoss(0),
  'median loss': byLoss(0.5),
  'most loss': byLoss(1),
};

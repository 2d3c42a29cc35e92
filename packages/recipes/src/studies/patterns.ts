import { learnMasks } from '../learn-masks.js';
import { shallowCopy } from '../shallow-copy.js';
import type { Study } from './study.js';

/**
 * Groups and what moves beside the gates: the paper's table 4.
 *
 * Command: `tinyfusion study patterns`.
 * Cost: 9 runs a seed of mask learning, recovery and measuring, about an hour a seed.
 */
export const patterns: Study = {
  name: 'patterns',
  title: 'Groups × what is co-optimised',
  paper: 'FID after 10K steps, LoRA | full | frozen: 1:2 33.39 | 35.77 | 39.56; 2:4 34.21 | 34.41 | 37.82; 7:14 49.41 | 38.76 | 49.75 (table 4).',
  by: 'pattern',
  columns: [['pattern', 'groups, update'], ['seed', 'seeds'], ['kept', 'kept'], ['confidence', 'confidence', 2], ['calibrationLoss', 'loss after the cut'], ['fid', 'FID ↓', 2], ['inceptionScore', 'IS ↑', 2], ['precision', 'precision ↑'], ['recall', 'recall ↑']],
  async run(bench, rows) {
    const { depth, sizes } = bench;
    for (const seed of sizes.seeds) {
      for (const groups of ['1:2', '2:4', `${depth / 2}:${depth}`]) {
        for (const update of ['lora', 'full', 'frozen'] as const) {
          await rows.once({ pattern: `${groups}, ${update}`, seed }, async () => {
            // full updates change the model: a copy learns
            const learner = await shallowCopy(bench.teacher, Array.from({ length: depth }, (_, i) => i));
            const { decision } = await learnMasks(learner, await bench.data(), { groups, update, steps: sizes.maskSteps, lr: update === 'full' ? 2e-4 : 1e-3, gateLr: 1e-3, seed, ...bench.named(`learn ${groups}, ${update}, seed ${seed}`) }).finally(() => learner.dispose());
            const student = await bench.recovered(decision.kept, seed, `recover ${groups}, ${update}, seed ${seed}`);
            const measures = await bench.measure(student, seed, `measure ${groups}, ${update}, seed ${seed}`);
            student.dispose();
            return { kept: decision.kept, confidence: decision.groups.reduce((sum, g) => sum + g.confidence, 0) / decision.groups.length, calibrationLoss: await bench.calibrationLoss(decision.kept), ...measures };
          });
        }
      }
    }
  },
};

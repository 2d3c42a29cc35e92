import { firstOfEach } from '@tinyfusion/pruning';
import type { Study } from './study.js';

/**
 * The learning rate of recovery: the paper's table 8, at rates that fit this size.
 *
 * Command: `tinyfusion study learning-rates`.
 * Cost: 4 recoveries and measurements a seed.
 */
export const learningRates: Study = {
  name: 'learning-rates',
  title: 'The learning rate of recovery',
  paper: 'FID: 2e-4 3.73, 1e-4 4.10, 5e-5 6.63 (table 8).',
  by: 'rate',
  columns: [['rate', 'learning rate'], ['seed', 'seeds'], ['fid', 'FID ↓', 2], ['inceptionScore', 'IS ↑', 2], ['precision', 'precision ↑'], ['recall', 'recall ↑']],
  async run(bench, rows) {
    const kept = firstOfEach(bench.depth, bench.depth / 2);
    for (const seed of bench.sizes.seeds) {
      for (const lr of [2e-3, 1e-3, 5e-4, 2.5e-4]) {
        await rows.once({ rate: lr.toExponential(1), seed }, async () => {
          const student = await bench.recovered(kept, seed, `recover at ${lr}, seed ${seed}`, { lr });
          const measures = await bench.measure(student, seed, `measure ${lr}, seed ${seed}`);
          student.dispose();
          return measures;
        });
      }
    }
  },
};

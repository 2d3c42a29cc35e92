import { TinyFusionError } from '@tinyfusion/core';
import { recoveryVariants } from '@tinyfusion/distill';
import { firstOfEach } from '@tinyfusion/pruning';
import type { Study } from './study.js';

/**
 * Ways to recover the same shallow model: the paper's table 5.
 *
 * Command: `tinyfusion study recovery`.
 * Cost: 7 recoveries and measurements a seed, about half an hour.
 */
export const recovery: Study = {
  name: 'recovery',
  title: 'Ways of recovery',
  paper: 'FID after 100K steps: fine-tuning 5.79, output KD 4.66, RepKD diverges, masked RepKD at 0.1 σ diverges, at 2 σ 3.73, at 4 σ 3.75 (table 5).',
  by: 'variant',
  columns: [['variant', 'recovery'], ['seed', 'seeds'], ['fid', 'FID ↓', 2], ['inceptionScore', 'IS ↑', 2], ['precision', 'precision ↑'], ['recall', 'recall ↑'], ['agreement', 'class agreement ↑'], ['ended', 'ended by']],
  async run(bench, rows) {
    const kept = firstOfEach(bench.depth, bench.depth / 2);
    for (const seed of bench.sizes.seeds) {
      for (const { name, ...variant } of recoveryVariants) {
        await rows.once({ variant: name, seed }, async () => {
          try {
            const student = await bench.recovered(kept, seed, `recover by ${name}, seed ${seed}`, variant);
            const measures = await bench.measure(student, seed, `measure ${name}, seed ${seed}`);
            student.dispose();
            return measures;
          } catch (error) {
            // what the paper writes as NaN
            if (TinyFusionError.isInstance(error) && ['DIVERGED', 'FEATURE_EXPLOSION'].includes(error.code)) return { ended: error.message, fid: null };
            throw error;
          }
        });
      }
    }
  },
};

import { createRng } from '@tinyfusion/core';
import { type RecoveryVariant, recoveryVariants } from '@tinyfusion/distill';
import { DiT } from '@tinyfusion/models';
import { firstOfEach } from '@tinyfusion/pruning';
import { distill } from '../distill.js';
import { lineChart } from '../report/svg.js';
import { shallowCopy } from '../shallow-copy.js';
import type { Study } from './study.js';

/**
 * How quality comes back over the steps, by masked RepKD and by fine-tuning, and how it comes to the same half trained from
 * random weights: the paper's figure 14.
 *
 * Command: `tinyfusion study convergence`.
 * Cost: 3 recoveries and 12 measurements a seed. Expected: what was cut is ahead of what was never trained, and stays so.
 */
export const convergence: Study = {
  name: 'convergence',
  title: 'Quality over the steps of recovery',
  paper: 'FID after 100K | 500K steps of 14 layers: masked RepKD 3.73 | 2.86, fine-tuning 5.73 | 3.92; DiT-L/2 of 24 layers from random weights after 1000K steps 3.73 (figure 14, table 1).',
  by: 'point',
  columns: [['point', 'way, share of the steps'], ['seed', 'seeds'], ['fid', 'FID ↓', 2], ['inceptionScore', 'IS ↑', 2], ['precision', 'precision ↑'], ['recall', 'recall ↑'], ['agreement', 'class agreement ↑']],
  async run(bench, rows) {
    const { teacher, depth, sizes } = bench;
    const kept = firstOfEach(depth, depth / 2);
    const every = Math.max(1, Math.floor(sizes.recoverySteps / 4));
    const shares = new Map([1, 2, 3, 4].map((quarter) => [quarter === 4 ? sizes.recoverySteps : quarter * every, `${25 * quarter} %`]));
    for (const seed of sizes.seeds) {
      for (const [way, { name: _, ...variant }] of Object.entries(ways)) {
        if ([...shares.values()].every((share) => rows.rows.some((row) => row['point'] === `${way}, ${share}` && row['seed'] === seed))) continue;
        const student = way === 'from random weights' ? new DiT({ ...teacher.config, depth: kept.length }, { init: createRng(seed).split('student') }) : await shallowCopy(teacher, kept);
        try {
          const save = async (model: DiT, step: number): Promise<void> => {
            const share = shares.get(step);
            if (share !== undefined) await rows.once({ point: `${way}, ${share}`, seed }, async () => ({ way, steps: step, ...(await bench.measure(model, seed, `measure ${way}, ${share}, seed ${seed}`)) }));
          };
          await distill(student, teacher, await bench.data(), { ...variant, steps: sizes.recoverySteps, lr: 1e-3, seed, checkpoint: { every, save }, ...bench.named(`${way}, seed ${seed}`) });
        } finally {
          student.dispose();
        }
      }
    }
  },
  plots: (rows) => ({
    curve: lineChart(
      Object.keys(ways).map((way, i) => ({ name: way, style: `s${i}`, points: means(rows.filter((row) => row['way'] === way && row['fid'] !== null).map((row) => [row['steps'] as number, row['fid'] as number])) })),
      { title: 'FID over the steps of recovery', xLabel: 'steps', yLabel: 'FID' },
    ),
  }),
};

const named = (wanted: string): RecoveryVariant => recoveryVariants.find(({ name }) => name === wanted)!;

const ways: Readonly<Record<string, RecoveryVariant>> = { 'masked RepKD': named('masked RepKD, 2 σ'), 'fine-tuning': named('fine-tuning'), 'from random weights': named('fine-tuning') };

/** The mean over seeds at each step. */
function means(points: readonly (readonly [step: number, fid: number])[]): [number, number][] {
  const steps = [...new Set(points.map(([step]) => step))].toSorted((a, b) => a - b);
  return steps.map((step) => {
    const own = points.filter(([at]) => at === step).map(([, fid]) => fid);
    return [step, own.reduce((a, b) => a + b, 0) / own.length];
  });
}

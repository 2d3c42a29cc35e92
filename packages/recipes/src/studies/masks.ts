import { createRng } from '@tinyfusion/core';
import { allMasks, stratified, summariseMasks } from '@tinyfusion/pruning';
import { scatterPlot } from '../report/svg.js';
import type { Study } from './study.js';

/**
 * The loss of every mask against what it recovers to: the paper's figure 5, and the claim of its table 3 point by point.
 *
 * Command: `tinyfusion study masks`.
 * Cost: 5 minutes for the 924 losses, and 12 recoveries of some minutes each. Expected: a weak relation at best.
 */
export const masks: Study = {
  name: 'masks',
  title: 'The loss right after the cut against what is recovered',
  paper: '100,000 random halves of 28 layers have losses from 0.195 to 37.694, deviation 1.300 (figure 5); the least one recovers to FID 20.69, the median one to 6.45 (table 3).',
  columns: [['what', ''], ['kept', 'kept'], ['calibrationLoss', 'loss after the cut'], ['fid', 'FID ↓', 2], ['inceptionScore', 'IS ↑', 2], ['losses', 'masks'], ['least', 'least loss'], ['median', 'median loss'], ['most', 'most loss'], ['deviation', 'deviation']],
  async run(bench, rows) {
    const { depth, sizes } = bench;
    const few = sizes.images < 1000;
    const { all } = await rows.once({ what: 'all masks' }, async () => {
      const study = await bench.losses();
      const summary = summariseMasks(study);
      return { losses: study.length, least: summary.min.loss, median: summary.median.loss, most: summary.max.loss, deviation: summary.deviation, all: study.map(({ loss }) => loss) };
    });
    // a run that goes on has them
    const study = few ? await bench.losses() : allMasks(depth, depth / 2).map((kept, i) => ({ kept, loss: (all as number[])[i]! }));
    for (const { kept, loss } of stratified(study, few ? 2 : 12, createRng(1))) {
      await rows.once({ what: 'recovered', kept: [...kept] }, async () => {
        const student = await bench.recovered(kept, 0, `recover ${kept.join(' ')}`);
        const measures = await bench.measure(student, 0, `measure ${kept.join(' ')}`);
        student.dispose();
        return { calibrationLoss: loss, ...measures };
      });
    }
  },
  plots: (rows) => ({ recovered: scatterPlot(rows.filter((row) => row['what'] === 'recovered').map((row) => [row['calibrationLoss'] as number, row['fid'] as number]), { title: 'FID after recovery against the loss after the cut', xLabel: 'loss after the cut', yLabel: 'FID after recovery' }) }),
};

import { proposeThreshold } from '@tinyfusion/distill';
import { firstOfEach } from '@tinyfusion/pruning';
import { activationLayers } from '../activation-layers.js';
import { shallowCopy } from '../shallow-copy.js';
import { lineChart } from '../report/svg.js';
import type { Study } from './study.js';

/**
 * How activations are distributed, and what the thresholds of masked RepKD take out: the paper's figure 8.
 *
 * Command: `tinyfusion study activations`.
 * Cost: a minute.
 */
export const activations: Study = {
  name: 'activations',
  title: 'Activations of teacher and student, and the thresholds',
  paper: 'the teacher has activations from −429 to 191, the student from −527 to 54 (figure 8); 2 σ masks them.',
  setting: () => '256 images at random timesteps, with noise as in training.',
  columns: [['model', 'model'], ['layer', 'block'], ['sigma', 'σ', 2], ['min', 'least', 1], ['max', 'most', 1], ['kurtosis', 'kurtosis', 1], ['beyond2', 'beyond 2 σ', 4], ['beyond4', 'beyond 4 σ', 4], ['proposed', 'proposed threshold']],
  async run(bench, rows) {
    const student = await shallowCopy(bench.teacher, firstOfEach(bench.depth, bench.depth / 2));
    for (const [model, which] of [[bench.teacher, 'teacher'], [student, 'half, before recovery']] as const) {
      const layers = await activationLayers(model, await bench.data(), { batches: bench.sizes.images < 1000 ? 1 : 8, ...bench.named(`activations of the ${which}`) });
      const proposed = proposeThreshold(layers);
      for (const { layer, sigma, min, max, kurtosis, beyond } of layers) {
        await rows.once({ model: which, layer }, async () => ({ sigma, min, max, kurtosis, beyond2: beyond[4]!, beyond4: beyond[8]!, proposed: `${proposed.sigmas} σ`, beyond }));
      }
    }
    student.dispose();
  },
  plots: (rows) =>
    Object.fromEntries(
      [...new Set(rows.map((row) => row['model'] as string))].map((model, i) => [
        i === 0 ? 'teacher' : 'student',
        lineChart(
          rows.filter((row) => row['model'] === model).map((row, k) => ({ name: `block ${row['layer']}`, style: `s${k % 6}${k < 6 ? '' : ' dash'}`, points: (row['beyond'] as number[]).map((share, j) => [j / 2, share] as const) })),
          { title: `Share of activations beyond k σ: ${model}`, xLabel: 'k', yLabel: 'share beyond', logarithmic: true, marks: [[2, '2 σ'], [4, '4 σ']] },
        ),
      ]),
    ),
};

import { decisionPlot } from '../report/svg.js';
import { learnMasks } from '../learn-masks.js';
import type { Study } from './study.js';

/**
 * How decisions settle while masks are learned: the paper's figures 6 and 9 to 11.
 *
 * Command: `tinyfusion study dynamics`.
 * Cost: three runs of mask learning.
 */
export const dynamics: Study = {
  name: 'dynamics',
  title: 'Decisions over the steps of mask learning',
  paper: 'with 1:2 and 2:4 decisions settle over 10,000 steps; in one large group (7:14) they go on changing (figure 6).',
  setting: ({ maskSteps }) => `Mask learning: ${maskSteps} steps of 64 with adapters, learning rates 1e-3; averaged gates looked at ${Math.floor(maskSteps / Math.max(1, Math.floor(maskSteps / 100)))} times.`,
  columns: [['groups', 'groups'], ['kept', 'kept at the end'], ['confidence', 'confidence', 2], ['changes', 'changes of the decision'], ['lastChange', 'last change at step']],
  async run(bench, rows) {
    const { depth, teacher, sizes } = bench;
    for (const groups of ['1:2', '2:4', `${depth / 2}:${depth}`]) {
      await rows.once({ groups }, async () => {
        const { decision, history } = await learnMasks(teacher, await bench.data(), { groups, steps: sizes.maskSteps, lr: 1e-3, gateLr: 1e-3, seed: sizes.seeds[0]!, ...bench.named(`learn ${groups}`) });
        const changed = history.rows.filter((row, i) => i > 0 && String(row.kept) !== String(history.rows[i - 1]!.kept));
        return { kept: decision.kept, confidence: decision.groups.reduce((sum, g) => sum + g.confidence, 0) / decision.groups.length, changes: changed.length, lastChange: changed.at(-1)?.step ?? 0, history: JSON.stringify(history.rows), depth };
      });
    }
  },
  plots: (rows) => Object.fromEntries(rows.map((row) => [String(row['groups']).replace(':', '-of-'), decisionPlot(JSON.parse(row['history'] as string) as Parameters<typeof decisionPlot>[0], row['depth'] as number)])),
};

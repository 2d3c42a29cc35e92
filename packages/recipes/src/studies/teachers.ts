import { firstOfEach } from '@tinyfusion/pruning';
import type { Study } from './study.js';

/**
 * A quarter of the depth: who teaches, and from whom the layers come. The paper's table 7.
 *
 * Command: `tinyfusion study teachers`.
 * Cost: 5 recoveries and 4 measurements a seed.
 */
export const teachers: Study = {
  name: 'teachers',
  title: 'A quarter of the layers: teacher × source',
  paper: 'FID of the 7-layer model, teacher | pruned from: XL | XL 56.18, XL | D14 36.69, D14 | XL 58.73, D14 | D14 32.47 (table 7).',
  by: 'pair',
  columns: [['pair', 'teacher, source'], ['seed', 'seeds'], ['fid', 'FID ↓', 2], ['inceptionScore', 'IS ↑', 2], ['precision', 'precision ↑'], ['recall', 'recall ↑'], ['agreement', 'class agreement ↑']],
  async run(bench, rows) {
    const { depth, teacher, sizes } = bench;
    const [half, quarter] = [depth / 2, depth / 4];
    for (const seed of sizes.seeds) {
      const pairs = [['whole', 'whole'], ['whole', 'half'], ['half', 'whole'], ['half', 'half']] as const;
      if (pairs.every(([a, b]) => rows.rows.some((row) => row['pair'] === `${a}, ${b}` && row['seed'] === seed))) continue;
      const middle = await bench.recovered(firstOfEach(depth, half), seed, `recover half the depth, seed ${seed}`);
      const models = { whole: teacher, half: middle };
      for (const [master, source] of pairs) {
        await rows.once({ pair: `${master}, ${source}`, seed }, async () => {
          const student = await bench.recovered(firstOfEach(models[source].blocks.length, quarter), seed, `recover a quarter, ${master} teaches ${source}, seed ${seed}`, { teacher: models[master], source: models[source] });
          const measures = await bench.measure(student, seed, `measure ${master}, ${source}, seed ${seed}`);
          student.dispose();
          return measures;
        });
      }
      middle.dispose();
    }
  },
};

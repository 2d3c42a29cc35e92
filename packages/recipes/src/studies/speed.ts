import { createRng, throwIfCancelled } from '@tinyfusion/core';
import { DiT } from '@tinyfusion/models';
import * as tf from '@tensorflow/tfjs-core';
import { breathe } from '../loop.js';
import { lineChart } from '../report/svg.js';
import type { Study } from './study.js';

/**
 * What removing layers buys, against what narrowing them buys: the paper's figure 4, measured on the device at hand.
 *
 * Command: `tinyfusion study speed`.
 * Cost: some minutes.
 */
export const speed: Study = {
  name: 'speed',
  title: 'Speed-up of less depth and of less width',
  paper: 'removing 2, 4, … 26 of 28 blocks speeds up 1.08, 1.17, 1.27, 1.40, 1.55, 1.74, 1.99, 2.30, 2.76, 3.41, 4.46, 6.45, 11.60 times; width 1.64 times at half (figure 4). Depth follows the number of blocks, width falls behind.',
  setting: () => 'A forward pass of 8 latents, whole and smaller model in turns, the least of 30 times each.',
  columns: [['what', ''], ['share', 'share of the blocks’ parameters', 2], ['layers', 'layers'], ['width', 'width'], ['speedUp', 'speed-up', 2]],
  async run(bench, rows) {
    const { config } = bench.teacher;
    const turns = bench.sizes.images < 1000 ? 3 : 30;
    /** Whole and smaller model in turns, so that what else the machine does meets both; the least of each counts. */
    const speedUp = async (layers: number, width: number): Promise<number> => {
      const models = [config, { ...config, depth: layers, hiddenSize: width }].map((of) => new DiT(of, { init: createRng(0) }));
      const [x, t, y] = [tf.zeros<tf.Rank.R4>([8, config.inputSize, config.inputSize, config.inChannels]), tf.fill([8], 500) as tf.Tensor1D, tf.zeros<tf.Rank.R1>([8], 'int32')];
      const least = [Infinity, Infinity];
      const { signal, onProgress } = bench.named(`time ${layers} layers of width ${width}`);
      try {
        for (let turn = 0; turn < turns; turn++) {
          throwIfCancelled(signal, 'speed');
          for (const [i, model] of models.entries()) {
            const from = performance.now();
            const out = tf.tidy(() => tf.sum(model.forward(x, t, y)));
            await out.data();
            out.dispose();
            least[i] = Math.min(least[i]!, performance.now() - from);
          }
          onProgress?.({ task: 'speed', step: turn + 1, total: turns, unit: 'turn' });
          await breathe();
        }
      } finally {
        tf.dispose([x, t, y]);
        for (const model of models) model.dispose();
      }
      return least[0]! / least[1]!;
    };
    const step = config.numHeads * 4;
    const widths = Array.from({ length: Math.floor(config.hiddenSize / step) - 1 }, (_, i) => config.hiddenSize - (i + 1) * step).filter((w) => w % config.numHeads === 0 && w % 4 === 0);
    for (let layers = config.depth - 1; layers >= 1; layers--) await rows.once({ what: 'depth', layers, width: config.hiddenSize }, async () => ({ share: layers / config.depth, speedUp: await speedUp(layers, config.hiddenSize) }));
    for (const width of widths) await rows.once({ what: 'width', layers: config.depth, width }, async () => ({ share: (width / config.hiddenSize) ** 2, speedUp: await speedUp(config.depth, width) }));
  },
  plots: (rows) => ({
    curve: lineChart(
      (['depth', 'width'] as const).map((what, i) => ({ name: what, style: `s${i}`, points: rows.filter((row) => row['what'] === what).map((row) => [1 - (row['share'] as number), row['speedUp'] as number] as const) })),
      { title: 'Speed-up against the share of block parameters removed', xLabel: 'share removed', yLabel: 'speed-up' },
    ),
  }),
};

// What a second rank brings to training the quickstart's teacher, and what a sum over ranks costs. Start it alone, then with mpirun:
//   node packages/distributed/bench/scaling.mjs
//   mpirun -np 2 node packages/distributed/bench/scaling.mjs
// Rank 0 prints a line of JSON; bench/cluster.mjs makes a model of many ranks of them.
import { createRng } from '@tinyfusion/core';
import { defaultCollective } from '@tinyfusion/distributed';
import { useBackend } from '@tinyfusion/kernels';
import { fashionTeacher, latentDataset, train } from '@tinyfusion/recipes';
import { reduceGradients } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs';

const [steps, warmUp, batchSize] = [Number(process.argv[2] ?? 12), 3, Number(process.argv[3] ?? 64)];
await useBackend({ prefer: 'wasm' });
const collective = await defaultCollective();
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

const data = latentDataset(createRng(1).normal(1000 * 256), [8, 8, 4], Int32Array.from({ length: 1000 }, (_, i) => i % 10));
// a clock on a machine that others use says little; what the process computed says what it needs
const [times, computing] = [[], []];
let [before, used] = [performance.now(), process.cpuUsage()];
const model = await train(data, {
  family: 'DiT',
  config: fashionTeacher,
  steps: steps + warmUp,
  batchSize,
  seed: 0,
  collective,
  onProgress: () => {
    const { user, system } = process.cpuUsage(used);
    times.push(performance.now() - before);
    computing.push((user + system) / 1000);
    [before, used] = [performance.now(), process.cpuUsage()];
  },
});

// the reduction of a step, and sums of several sizes, with all ranks there
const gradients = model.parameters().map((p) => tf.ones(p.shape));
const parameters = gradients.reduce((sum, g) => sum + g.size, 0);
const timed = async (job, times = 9) => {
  const took = [];
  for (let i = 0; i < times; i++) {
    await collective.barrier();
    const start = performance.now();
    await job();
    took.push(performance.now() - start);
  }
  return { median: median(took), least: Math.min(...took) };
};
const reduction = await timed(async () => tf.dispose(await reduceGradients(collective, gradients)));
const sums = [];
for (const bytes of [8, 2 ** 16, 2 ** 20, 2 ** 23]) {
  const values = new Float32Array(bytes / 4); // used again, as reduceGradients does: new memory would take as long as the sum
  sums.push([bytes, await timed(() => collective.allReduce(values, 'sum'), 21)]);
}
if (collective.rank === 0) {
  const step = median(times.slice(warmUp));
  console.log(JSON.stringify({ ranks: collective.size, batchSize, parameters, stepMs: +step.toFixed(1), stepCpuMs: +median(computing.slice(warmUp)).toFixed(1), samplesPerSecond: +((1000 * batchSize) / step).toFixed(1), reductionMs: +reduction.median.toFixed(2), leastReductionMs: +reduction.least.toFixed(2), reductionShare: +(reduction.median / step).toFixed(4), sumsMs: sums.map(([bytes, { median: ms }]) => [bytes, +ms.toFixed(3)]), leastSumsMs: sums.map(([bytes, { least: ms }]) => [bytes, +ms.toFixed(3)]) }));
}
await collective.close();

// Trains for 10,000 steps, and sees that tensors and memory are where they were after the first 100.
//   node test/kill/steady.mjs [steps]
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '../../packages/core/dist/index.js';
import { useBackend } from '../../packages/kernels/dist/index.js';
import { latentDataset, train } from '../../packages/recipes/dist/index.js';
import { RunFolder } from '../../packages/recipes/dist/node.js';
import { saveModel } from '../../packages/models/dist/index.js';
import * as tf from '@tensorflow/tfjs';

const steps = Number(process.argv[2] ?? 10_000);
await useBackend({ prefer: 'wasm' });
const folder = mkdtempSync(join(tmpdir(), 'steady-'));
const data = latentDataset(createRng(1).normal(200 * 64), [4, 4, 4], Int32Array.from({ length: 200 }, (_, i) => i % 3));
const config = { inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 16, depth: 2, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };
const seen = [];
const run = await RunFolder.open(folder, { task: 'steady' }, { command: 'test/kill/steady.mjs', every: 500 });
const model = await train(data, {
  config,
  steps,
  batchSize: 4,
  seed: 0,
  ...run.checkpointing((result) => saveModel(result), {
    onProgress: ({ step }) => {
      if (step % 100 !== 0) return;
      globalThis.gc?.();
      const { numTensors, numBytes } = tf.memory();
      seen.push({ step, tensors: numTensors, bytes: numBytes, rss: process.memoryUsage().rss / 2 ** 20 });
      if (step % 1000 === 0 || step === 100) process.stderr.write(`${JSON.stringify({ ...seen.at(-1), rss: Math.round(seen.at(-1).rss) })}\n`);
    },
  }, { metric: 'mse' }),
});
model.dispose();
await run.close();
rmSync(folder, { recursive: true });
const [first, last] = [seen[0], seen.at(-1)];
const most = Math.max(...seen.slice(10).map(({ rss }) => rss));
if (last.tensors !== first.tensors || last.bytes !== first.bytes) fail(`${last.tensors} tensors of ${last.bytes} bytes after ${last.step} steps, ${first.tensors} of ${first.bytes} after ${first.step}`);
// the heap and the code that V8 keeps grow for the first thousand steps; a leak of a tensor a step would be far more
if (steps >= 2000 && last.rss > seen[9].rss * 1.1 + 10) fail(`${last.rss.toFixed(0)} MB resident after ${last.step} steps, ${seen[9].rss.toFixed(0)} MB after ${seen[9].step}`);
console.log(`ok: ${last.step} steps, ${last.tensors} tensors as after ${first.step}; ${first.rss.toFixed(0)} MB resident after ${first.step} steps, ${seen[9]?.rss.toFixed(0)} MB after 1000, ${last.rss.toFixed(0)} MB at the end, ${most.toFixed(0)} MB at most`);

function fail(message) {
  console.error(`FAILED: ${message}`);
  process.exit(1);
}

// what one rank does, a process or a thread
import '@tensorflow/tfjs';
import { createRng, restoreRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { train } from '@tinyfusion/recipes';
import * as tf from '@tensorflow/tfjs-core';
import { createHash } from 'node:crypto';

const config = { inputSize: 4, patchSize: 2, inChannels: 4, hiddenSize: 32, depth: 2, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 3, learnSigma: true };

/** Latents of three classes, drawn afresh for each batch. */
const data = {
  shape: [4, 4, 4],
  labels: Int32Array.from({ length: 300 }, (_, i) => i % 3),
  batches: (batchSize, from) => {
    const rng = 'epochStart' in from ? restoreRng(from.epochStart) : from;
    const next = () => {
      const labels = rng.integers(0, 3, batchSize);
      const means = Float32Array.from(rng.normal(batchSize * 64), (x, i) => 0.3 * x + labels[Math.floor(i / 64)] - 1);
      return { latents: tf.tensor4d(means, [batchSize, 4, 4, 4]), labels: tf.tensor1d(labels, 'int32') };
    };
    return { next, position: () => ({ epochStart: rng.state(), taken: 0 }) };
  },
};

export async function run({ collective, data: { steps } }) {
  await useBackend({ prefer: 'wasm' });
  const losses = [];
  const model = await train(data, { config, steps, batchSize: 16, seed: createRng(3).integers(0, 100, 1)[0], collective, onProgress: ({ values }) => losses.push(values.loss) });
  const hash = createHash('sha256');
  for (const parameter of model.parameters()) hash.update(await parameter.data());
  return { rank: collective.rank, size: collective.size, losses, hash: hash.digest('hex') };
}

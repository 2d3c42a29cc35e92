// A DiT in plain tfjs, on tfjs's kernels.
import '@tensorflow/tfjs';
import * as tf from '@tensorflow/tfjs-core';
import { checked, startBackend, peakBytes } from './backend.mjs';
import { plainBlock, plainDiT } from './plain-dit.mjs';
import { takeTurns } from './turns.mjs';

await takeTurns(async (work) => {
  await startBackend({ ...work, kernels: 'stock' });
  const peak = peakBytes();
  const { forward, variables } = work.work === 'block' ? plainBlock(work) : plainDiT(work);
  if (work.work === 'forward' || work.work === 'block') return async () => checked(tf.tidy(forward));
  const optimizer = tf.train.adam(1e-4, 0.9, 0.999, 1e-8);
  const step = async () => checked(optimizer.minimize(() => tf.mean(tf.square(forward())), true, variables));
  if (work.work === 'step') return step;
  return async () => {
    peak.reset();
    const { check } = await step();
    return { value: peak.bytes() / 1e6, check };
  };
});

// What a model asks of a WebGPU device, counted at the device itself: with our kernels, or in plain tfjs on its own.
import './dawn.mjs';
import '@tensorflow/tfjs';
import * as tf from '@tensorflow/tfjs-core';
import { AdamW, lossAndGradients } from '@tinyfusion/train';
import { startBackend } from './backend.mjs';
import { ditOf } from './models.mjs';
import { plainDiT } from './plain-dit.mjs';
import { meanMagnitude, takeTurns } from './turns.mjs';

const counts = { dispatches: 0, submits: 0, 'MB written': 0, 'MB of new buffers': 0 };
watch(GPUComputePassEncoder, 'dispatchWorkgroups', () => void counts.dispatches++);
watch(GPUQueue, 'submit', () => void counts.submits++);
watch(GPUQueue, 'writeBuffer', (_buffer, _at, data, _from, size) => void (counts['MB written'] += (size ?? data.byteLength) / 1e6));
watch(GPUDevice, 'createBuffer', ({ size }) => void (counts['MB of new buffers'] += size / 1e6));

function watch({ prototype }, method, count) {
  const original = prototype[method];
  prototype[method] = function (...args) {
    count(...args);
    return original.apply(this, args);
  };
}

await takeTurns(async (work) => {
  await startBackend(work);
  const run = work.kernels === 'stock' ? plainRun(work) : ourRun(work);
  return async () => {
    for (const name of Object.keys(counts)) counts[name] = 0;
    const from = performance.now();
    const result = run();
    const recording = performance.now() - from;
    const check = meanMagnitude(await result.data());
    result.dispose();
    return { value: { ...counts, 'ms of recording': recording }, check };
  };
});

function ourRun(work) {
  const { dit, x, t, y } = ditOf(work);
  if (work.work === 'forward') return () => dit.forward(x, t, y);
  const parameters = dit.parameters();
  const optimizer = new AdamW(parameters);
  return () => {
    const { loss, gradients } = lossAndGradients(() => tf.mean(tf.square(dit.forward(x, t, y))), parameters);
    optimizer.step(gradients, { lr: 1e-4 });
    tf.dispose(gradients);
    for (const parameter of parameters) tf.backend().uploadToGPU(parameter.dataId);
    return loss;
  };
}

function plainRun(work) {
  const { forward, variables } = plainDiT({ ...work, layout: 'pytorch' });
  if (work.work === 'forward') return () => tf.tidy(forward);
  const optimizer = tf.train.adam(1e-4, 0.9, 0.999, 1e-8);
  return () => optimizer.minimize(() => tf.mean(tf.square(forward())), true, variables);
}

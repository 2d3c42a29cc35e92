// What WebGPU is asked for, where there is no GPU to time: dispatches, submits, bytes, and the time that JavaScript takes to
// record a step, on a device of Dawn's that validates and computes nothing. The model: width 384, 12 blocks, 64 tokens,
// batch 8.
//   node bench/webgpu-counts.mjs [--json FILE] [--runs N]        (after pnpm build)
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { json: { type: 'string' }, runs: { type: 'string', default: '9' } } });
const runs = Number(values.runs);

if (positionals.length > 0) {
  process.stdout.write(`${JSON.stringify(await counted(...positionals))}\n`);
  process.exit(0);
}

const peers = { stock: 'stock tfjs-backend-webgpu', ours: 'the same, not compiled' };
const measures = { dispatches: ['dispatches', 'dispatches'], submits: ['submits', 'submits'], megabytes: ['buffers in the pool', 'MB'], milliseconds: ['recording time', 'ms'] };
const contests = [
  ['forward pass', ['ours', 'forward'], ['stock', 'forward']],
  ['training step', ['ours', 'step'], ['stock', 'step']],
  ['compiled forward pass', ['compiled', 'forward'], ['stock', 'forward']],
  ['compiled forward pass', ['compiled', 'forward'], ['ours', 'forward']],
];
const machine = `Dawn's null device, 8 buffers a shader; ${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.versions.node}`;
const found = new Map();
const measured = (work) => {
  const key = work.join(' ');
  if (!found.has(key)) found.set(key, JSON.parse(execFileSync(process.execPath, [fileURLToPath(import.meta.url), '--runs', String(runs), ...work], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim().split('\n').at(-1)));
  return found.get(key);
};
const rows = contests.flatMap(([name, ours, theirs]) =>
  Object.entries(measures).map(([measure, [what, unit]]) => {
    const [mine, peer] = [measured(ours)[measure], measured(theirs)[measure]];
    return { name: `${name}: ${what}`, backend: 'webgpu', peer: peers[theirs[0]], ratio: +(peer / mine).toFixed(2), ours: +mine.toFixed(2), theirs: +peer.toFixed(2), unit, runs, machine };
  }),
);
console.table(rows.map(({ name, peer, ratio, ours, theirs, unit }) => ({ name, peer, ratio, ours, theirs, unit })));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);

/** Counts of one run after others have filled the pool, and the median of the time that `runs` take. */
async function counted(kind, work) {
  const { installNullDevice } = await import('../test/null-device.mjs');
  installNullDevice();
  await import('@tensorflow/tfjs');
  const tf = await import('@tensorflow/tfjs-core');
  const { useBackend } = await import('@tinyfusion/kernels');
  const { DiT, compile } = await import('@tinyfusion/models');
  const { AdamW, lossAndGradients } = await import('@tinyfusion/train');
  if (kind === 'stock') {
    await import('@tensorflow/tfjs-backend-webgpu');
    await tf.setBackend('webgpu');
  } else await useBackend({ prefer: 'webgpu' });
  const backend = tf.backend();
  const count = { dispatches: 0, submits: 0 };
  countCalls(GPUComputePassEncoder.prototype, 'dispatchWorkgroups', () => (count.dispatches += 1));
  countCalls(GPUQueue.prototype, 'submit', () => (count.submits += 1));
  const dit = new DiT({ inputSize: 16, patchSize: 2, inChannels: 4, hiddenSize: 384, depth: 12, numHeads: 6, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 10, learnSigma: true }, { init: 'zeros' });
  const [x, t, y] = [tf.zeros([8, 16, 16, 4]), tf.tensor1d([0, 1, 2, 3, 4, 5, 6, 7]), tf.tensor1d([0, 1, 2, 3, 4, 5, 6, 7], 'int32')];
  const parameters = dit.parameters();
  for (const tensor of [x, ...[...dit.namedParameters()].map(([, p]) => p)]) backend.uploadToGPU(tensor.dataId);
  const optimizer = work === 'step' ? new AdamW(parameters) : undefined;
  const compiled = kind === 'compiled' ? await compile(dit, { batch: 8 }) : undefined;
  const denoiser = compiled?.denoiser([0, 1, 2, 3, 4, 5, 6, 7]);
  const once = () => {
    if (denoiser !== undefined) denoiser(x, t).dispose();
    else if (work === 'forward') tf.tidy(() => backend.uploadToGPU(dit.forward(x, t, y).dataId));
    else {
      const { loss, gradients } = lossAndGradients(() => tf.mean(tf.square(dit.forward(x, t, y))), parameters);
      optimizer.step(gradients, { lr: 1e-4 });
      tf.dispose([loss, gradients]);
      for (const p of parameters) backend.uploadToGPU(p.dataId);
    }
    if (backend.commandEncoder !== null) {
      backend.endComputePassEncoder();
      backend.submitQueue();
    }
  };
  const weights = [...dit.namedParameters()].reduce((sum, [, p]) => sum + 4 * p.size, 0) * (work === 'step' ? 3 : 1); // with moments
  once();
  once();
  Object.assign(count, { dispatches: 0, submits: 0 });
  once();
  const counts = { ...count };
  const times = [];
  for (let i = 0; i < runs; i++) {
    const from = performance.now();
    once();
    times.push(performance.now() - from);
  }
  // the pool never shrinks: what it has is what the run needs beside the weights
  const pool = (tf.memory().numBytesAllocatedInGPU - weights + (compiled?.bytes ?? 0)) / 1e6;
  return { ...counts, megabytes: pool, milliseconds: times.toSorted((a, b) => a - b)[times.length >> 1] };
}

function countCalls(prototype, name, count) {
  const original = prototype[name];
  prototype[name] = function (...args) {
    count();
    return original.apply(this, args);
  };
}

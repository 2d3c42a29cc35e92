// Masks a second of a study of all halves of the embedded teacher, against forward passes of a model of half the depth with
// the same loss on the same data, in turns in one run.
//   node bench/mask-study.mjs [--images N] [--runs N] [--json FILE]   (after pnpm build; some minutes)
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import * as tf from '@tensorflow/tfjs';
import { createRng } from '@tinyfusion/core';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadModel } from '@tinyfusion/models';
import { allMasks, maskLosses } from '@tinyfusion/pruning';
import { shallowCopy } from '@tinyfusion/recipes';

const { values } = parseArgs({ options: { images: { type: 'string', default: '64' }, runs: { type: 'string', default: '3' }, json: { type: 'string' } } });
const [images, runs] = [Number(values.images), Number(values.runs)];
if (![images, runs].every((n) => Number.isInteger(n) && n > 0)) throw new Error(`--images and --runs are ${values.images} and ${values.runs}, expected positive integers`);

await useBackend({ prefer: 'wasm' });
const teacher = await loadModel(await loadTeacher());
const { depth } = teacher.config;
const masks = allMasks(depth, depth / 2);
const half = await shallowCopy(teacher, masks[0]);
const diffusion = new GaussianDiffusion();
const rng = createRng(0);
const [latents, noise] = [0, 1].map(() => tf.tensor(rng.normal(images * 256), [images, 8, 8, 4]));
const times = rng.integers(0, diffusion.steps, images);
const labels = tf.tensor1d(rng.integers(0, 10, images), 'int32');
const loss = async (model, options = {}) => {
  const mean = tf.tidy(() => tf.mean(diffusion.trainingLosses((x, t) => model.forward(x, t, labels, options), latents, times, noise).loss));
  const [value] = await mean.data();
  mean.dispose();
  return value;
};
const perSecond = async (count, job) => {
  const start = performance.now();
  await job();
  return (1000 * count) / (performance.now() - start);
};

const study = () => maskLosses(masks, { depth, loss: (hook) => loss(teacher, { hook }) });
const passes = async (count) => {
  for (let i = 0; i < count; i++) await loss(half);
};
const [cut] = await maskLosses([masks[0]], { depth, loss: (hook) => loss(teacher, { hook }) });
const whole = await loss(half);
if (Math.abs(cut.loss - whole) > 1e-4 * whole) throw new Error(`the study's loss of a half is ${cut.loss}, the half's own ${whole}`);
const [ours, theirs] = [[], []];
for (let run = 0; run < runs; run++) {
  ours.push(await perSecond(masks.length, study));
  theirs.push(await perSecond(masks.length / 2, () => passes(masks.length / 2)));
  console.error(`run ${run + 1} of ${runs}: ${ours[run].toFixed(1)} masks a second, ${theirs[run].toFixed(1)} passes`);
}
const median = (all) => all.toSorted((a, b) => a - b)[all.length >> 1];
const row = { name: `study of all ${masks.length} halves of ${depth} blocks, ${images} images`, backend: 'wasm', peer: 'forward passes of half the depth', ratio: +median(ours.map((o, i) => o / theirs[i])).toFixed(2), ours: +median(ours).toFixed(1), theirs: +median(theirs).toFixed(1), unit: 'a second', runs, machine: `${cpus().length} × ${cpus()[0].model.trim()}, Node ${process.versions.node}`, date: new Date().toISOString().slice(0, 10) };
console.log(`${row.name}: ${row.ours} masks a second; ${row.peer}: ${row.theirs} (${row.ratio} times)`);
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify([row], null, 2)}\n`);

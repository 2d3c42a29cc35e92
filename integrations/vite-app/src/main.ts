import '@tensorflow/tfjs';
import { createRng } from '@tinyfusion/core';
import { LayerGates } from '@tinyfusion/sampler';
import * as tf from '@tensorflow/tfjs-core';
import type { Sampled } from './sampler.worker';

const say = (id: string, text: string) => void (document.getElementById(id)!.textContent = text);

// the worker samples, while the page learns which layers to keep
const worker = new Worker(new URL('./sampler.worker.ts', import.meta.url), { type: 'module' });
worker.addEventListener('error', ({ message }) => say('sampling', `failed: ${message}`));
worker.addEventListener('message', ({ data }: MessageEvent<Sampled>) => {
  if ('step' in data) return say('sampling', `step ${data.step} of ${data.total}`);
  const context = (document.getElementById('images') as HTMLCanvasElement).getContext('2d')!;
  for (const [i, pixels] of data.images.entries()) {
    const image = context.createImageData(data.side, data.side);
    for (const [at, value] of pixels.entries()) image.data.set([value, value, value, 255], 4 * at);
    context.putImageData(image, i * data.side, 0);
  }
  say('sampling', `${data.images.length} images on ${data.backend}`);
});

await tf.setBackend('cpu');
const gates = new LayerGates('1:2', 4);
const cost = tf.tensor1d([0, 1, 1, 0]);
const optimizer = tf.train.adam(0.01);
const rng = createRng(0);
for (let step = 0; step < 60; step++) {
  optimizer.minimize(() => tf.mean(tf.sum(tf.mul(tf.stack(gates.sample(32, { tau: 1, scaling: 100, rng }).masks, 1), cost), 1)), false, gates.gates);
}
say('gates', `kept ${(await gates.decide(100)).kept.join(' ')}`);

// The memory of an evaluation's statistics and Inception Score over growing numbers of images, each in a process of its own.
//   node bench/evaluation-memory.mjs [COUNT...]   (default 2000 50000; after pnpm build)
// The network is the first pixels of an image: what is measured is what is kept, not what Inception takes.
import { fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { setFeatures } from '@tinyfusion/recipes';
import * as tf from '@tensorflow/tfjs';

const [DIMENSION, CLASSES, SIDE] = [2048, 1008, 64];

if (process.send === undefined) {
  for (const count of process.argv.length > 2 ? process.argv.slice(2) : ['2000', '50000']) {
    const child = fork(fileURLToPath(import.meta.url), [count]);
    const { megabytes, seconds, tensors } = await new Promise((resolve, reject) => {
      child.once('message', resolve);
      child.once('exit', (code) => reject(new Error(`ended with ${code}`)));
    });
    console.log(`${count} images: at most ${megabytes} MB, ${seconds} s, ${tensors} tensors left`);
  }
} else {
  await useBackend({ prefer: 'wasm' });
  const count = Number(process.argv[2]);
  const size = SIDE * SIDE * 3;
  async function* batches(most) {
    const noise = Uint8Array.from(createRng(1).uniform(2 * most * size), (u) => 256 * u);
    for (let at = 0; at < count; at += most) {
      const from = (at * 7919) % (most * size);
      yield noise.slice(from, from + Math.min(most, count - at) * size);
    }
  }
  const first = (images, n) => tf.slice(tf.reshape(images, [images.shape[0], size]), [0, 0], [-1, n]);
  const network = { name: 'first pixels', dimension: DIMENSION, spatialDimension: 0, classes: CLASSES, comparable: false, resize: 'none', inputSize: SIDE, run: async (images) => tf.tidy(() => ({ features: first(images, DIMENSION), logits: tf.div(first(images, CLASSES), 64) })) };
  const from = performance.now();
  await setFeatures(network, { name: 'noise', count, height: SIDE, width: SIDE, batches, warnings: [] }, { scored: true });
  const seconds = Math.round((performance.now() - from) / 1000);
  const megabytes = Math.round(process.platform === 'linux' ? Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024 : process.resourceUsage().maxRSS / 1024);
  process.send({ megabytes, seconds, tensors: tf.memory().numTensors });
  process.exit();
}

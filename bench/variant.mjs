// One contestant in a process of its own; runs once for each message and answers with its milliseconds.
//   node variant.mjs <ours|stock> <training-step|sampling-step> <depth> <width> <batch>
import '@tensorflow/tfjs';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-wasm';
import { createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { DiT } from '@tinyfusion/models';
import { AdamW } from '@tinyfusion/train';

const [who, what, depth, width, batch] = process.argv.slice(2);
if (who === 'ours') await useBackend({ prefer: 'wasm' });
else await tf.setBackend('wasm'); // the same model on tfjs's own kernels

const rng = createRng(0);
const n = Number(batch);
const dit = new DiT({ inputSize: 8, patchSize: 2, inChannels: 4, hiddenSize: Number(width), depth: Number(depth), numHeads: 4, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 10, learnSigma: true }, { init: rng });
const diffusion = new GaussianDiffusion();
const x = tf.tensor4d(rng.normal(n * 256), [n, 8, 8, 4]);
const noise = tf.tensor4d(rng.normal(n * 256), [n, 8, 8, 4]);
const y = tf.tensor1d(rng.integers(0, 10, n), 'int32');
const t = rng.integers(1, 1000, n);
// tfjs-wasm cannot differentiate a convolution by its weight: stock is spared that parameter
const parameters = dit.parameters().filter((p) => who === 'ours' || p !== dit.x_embedder.proj.weight);
const optimizer = new AdamW(parameters);

function once() {
  if (what === 'training-step') {
    const { value, grads } = tf.variableGrads(() => tf.mean(diffusion.trainingLosses((z, s) => dit.forward(z, s, y), x, t, noise).loss), parameters);
    optimizer.step(parameters.map((p) => grads[p.name]), { lr: 1e-4 });
    tf.dispose([value, grads]);
  } else diffusion.run((z, s) => dit.forward(z, s, y), x, t).dispose();
}

once();
process.send('ready');
process.on('message', () => {
  const from = performance.now();
  once();
  process.send(performance.now() - from);
});

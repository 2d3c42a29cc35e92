// A training loop of your own around a DiT: loss, clipping, AdamW, averages, and a file from which the run goes on.
import '@tensorflow/tfjs';
import { existsSync } from 'node:fs';
import { createRng, restoreRng, type RngState } from '@tinyfusion/core';
import { GaussianDiffusion } from '@tinyfusion/diffusion';
import { useBackend } from '@tinyfusion/kernels';
import { DiT } from '@tinyfusion/models';
import { randomNormal } from '@tinyfusion/nn';
import { AdamW, Ema, clipFactor, cosine, globalNorm, lossAndGradients, restoreTrainingState, saveTrainingState, withWarmUp } from '@tinyfusion/train';
import { loadSafetensors, writeFileAtomic } from '@tinyfusion/weights/node';
import * as tf from '@tensorflow/tfjs-core';

const [steps, file] = [Number(process.argv[2] ?? 200), 'run.safetensors'];
await useBackend();

// images of 8 × 8: class 0 has vertical stripes, class 1 horizontal ones
const stripes = (labels: Int32Array) =>
  tf.tidy(() => {
    const wave = tf.sin(tf.mul(tf.range(0, 8), Math.PI / 2));
    const pictures = [tf.tile(tf.reshape(wave, [1, 8]), [8, 1]), tf.tile(tf.reshape(wave, [8, 1]), [1, 8])];
    return tf.expandDims(tf.stack(Array.from(labels, (label) => pictures[label]!)), -1) as tf.Tensor4D;
  });

const config = { inputSize: 8, patchSize: 2, inChannels: 1, hiddenSize: 48, depth: 4, numHeads: 4, mlpRatio: 2, classDropoutProb: 0, numClasses: 2, learnSigma: false };
const model = new DiT(config, { init: createRng(0) });
const parameters = model.parameters();
const [optimizer, ema] = [new AdamW(parameters), new Ema(parameters, { decay: 0.999, warmUp: true })];
const diffusion = new GaussianDiffusion({ variance: 'fixed-large' });
const lr = withWarmUp(cosine({ from: 2e-3, to: 2e-4, steps }), 20);

const saved = existsSync(file) ? await restoreTrainingState<{ step: number; draws: RngState }>(await loadSafetensors(file), { model, optimizer, ema }) : undefined;
const rng = saved === undefined ? createRng(1) : restoreRng(saved.draws);
if (saved !== undefined) console.log(`goes on from step ${saved.step}`);

for (let step = saved?.step ?? 0; step < steps; step++) {
  const labels = rng.integers(0, 2, 16);
  const { loss, gradients } = lossAndGradients(() => {
    const classes = tf.tensor1d(labels, 'int32');
    const { loss: each } = diffusion.trainingLosses((x, t) => model.forward(x as tf.Tensor4D, t, classes), stripes(labels), rng.integers(0, diffusion.steps, 16), randomNormal(rng, [16, 8, 8, 1]));
    return tf.mean(each) as tf.Scalar;
  }, parameters);
  optimizer.step(gradients, { lr: lr(step), gradientScale: clipFactor(await globalNorm(gradients), 1) });
  ema.update();
  if (step % 20 === 0 || step + 1 === steps) console.log(`step ${step}, loss ${(await loss.data())[0]!.toFixed(3)}`);
  tf.dispose([loss, ...gradients]);
}
const done = Math.max(steps, saved?.step ?? 0); // a file of more steps stays one of so many
await writeFileAtomic(file, await saveTrainingState({ model, optimizer, ema }, { step: done, draws: rng.state() }));
console.log(`${done} steps → ${file}`);

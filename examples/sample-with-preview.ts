// Sampling as an async iterator: progress, a look at every step, and a clean stop.
import '@tensorflow/tfjs';
import { createRng } from '@tinyfusion/core';
import { GaussianDiffusion, classifierFreeGuidance, dpmSolver } from '@tinyfusion/diffusion';
import { loadAutoencoder, loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadAutoencoderKL, loadDiT } from '@tinyfusion/models';
import * as tf from '@tensorflow/tfjs-core';

await useBackend();
const dit = await loadDiT(await loadTeacher());
const vae = await loadAutoencoderKL(await loadAutoencoder());
const labels = tf.tensor1d([7, dit.nullClass], 'int32'); // a sneaker, and no class
const denoiser = classifierFreeGuidance((x, t) => dit.forward(x as tf.Tensor4D, t, labels), { scale: 2.5, channels: 'all' });
const noise = tf.tensor4d(createRng(Number(process.argv[2] ?? 0)).normal(256), [1, 8, 8, 4]);

let latents: tf.Tensor | undefined;
for await (const { step, total, x, xStart } of dpmSolver(new GaussianDiffusion(), denoiser, { noise, steps: 10, signal: AbortSignal.timeout(60_000) })) {
  console.log(`${step}/${total}: the model expects values of deviation ${tf.moments(xStart).variance.sqrt().dataSync()[0]!.toFixed(2)}`);
  latents = x;
}
const image = tf.tidy(() => vae.fromLatents(latents as tf.Tensor4D).squeeze<tf.Tensor2D>());
const [height, width] = image.shape;
const values = await image.data();
for (let y = 0; y < height; y += 2) console.log(Array.from({ length: width }, (_, x) => ' .:-=+*#%@'[Math.min(9, Math.max(0, Math.floor((values[y * width + x]! + 1) * 5)))]).join(''));

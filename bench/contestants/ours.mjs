// Our models. `kernels: 'ours'` runs our kernels, `'stock'` the same programs on tfjs's own.
import '@tensorflow/tfjs';
import * as tf from '@tensorflow/tfjs-core';
import { attention } from '@tinyfusion/kernels';
import { AutoencoderKL, DiTBlock } from '@tinyfusion/models';
import { AdamW, lossAndGradients } from '@tinyfusion/train';
import { createRng } from '@tinyfusion/core';
import { LayerGates, gateHook, skippingHook } from '@tinyfusion/sampler';
import { checked, startBackend, peakBytes } from './backend.mjs';
import { ditOf, filled, vaeConfig } from './models.mjs';
import { fill } from './numbers.mjs';
import { takeTurns } from './turns.mjs';
const tensor = (name, shape) => tf.tensor(fill(name, shape.reduce((a, b) => a * b, 1), 1), shape);

const works = {
  product({ batch, m, n, k, transposed }) {
    const outer = batch === undefined ? [] : [batch];
    const [a, b] = [tensor('a', [...outer, m, k]), tensor('b', [...outer, ...(transposed ? [n, k] : [k, n])])];
    return async () => checked(tf.matMul(a, b, false, transposed));
  },

  attention({ batch, heads, tokens, headWidth }) {
    const [q, k, v] = ['q', 'k', 'v'].map((name) => tensor(name, [batch, heads, tokens, headWidth]));
    return async () => checked(attention(q, k, v));
  },

  block({ width, heads, tokens, batch }) {
    const block = filled(new DiTBlock(width, heads, 4, 'zeros'));
    const [x, c] = [tensor('x', [batch, tokens, width]), tensor('c', [batch, width])];
    return async () => checked(block.forward(x, c));
  },

  forward(work) {
    const { dit, x, t, y } = ditOf(work);
    return async () => checked(dit.forward(x, t, y));
  },

  image(work) {
    const { dit, x, t, y } = ditOf(work);
    return async () => {
      let latents = tf.clone(x);
      for (let i = 0; i < work.steps; i++) {
        const next = tf.tidy(() => tf.sub(latents, tf.mul(tf.slice(dit.forward(latents, t, y), [0, 0, 0, 0], [-1, -1, -1, 4]), 0.1)));
        latents.dispose();
        latents = next;
      }
      return checked(latents);
    };
  },

  step(work) {
    const { dit, x, t, y } = ditOf(work);
    const parameters = dit.parameters();
    const optimizer = new AdamW(parameters);
    return async () => {
      const { loss, gradients } = lossAndGradients(() => tf.mean(tf.square(dit.forward(x, t, y))), parameters);
      optimizer.step(gradients, { lr: 1e-4 });
      tf.dispose(gradients);
      return checked(loss);
    };
  },

  memory(work) {
    const peak = peakBytes();
    const step = works.step(work);
    return async () => {
      peak.reset();
      const { check } = await step();
      return { value: peak.bytes() / 1e6, check };
    };
  },

  masks(work) {
    const { dit, x, t, y } = ditOf(work);
    const parameters = dit.parameters();
    const gates = new LayerGates('1:2', work.depth);
    const optimizer = new AdamW([...parameters, ...gates.gates]);
    const rng = createRng(0);
    return async () => {
      const options = { tau: 1, scaling: 100, rng };
      const draw = work.per === 'batch' ? await gates.sampleForBatch(options) : undefined;
      const { loss, gradients } = lossAndGradients(() => {
        const hook = draw === undefined ? gateHook(gates.sample(work.batch, options).masks) : skippingHook(draw, draw.masks(work.batch));
        return tf.mean(tf.square(dit.forward(x, t, y, { hook })));
      }, [...parameters, ...gates.gates]);
      optimizer.step(gradients, { lr: 1e-4 });
      await loss.data();
      tf.dispose([loss, ...gradients]);
    };
  },

  decode({ latents }) {
    const vae = filled(new AutoencoderKL(vaeConfig, { init: 'zeros' }));
    const z = tensor('z', [1, latents, latents, 4]);
    return async () => checked(vae.decode(z));
  },
};

await takeTurns(async (work) => {
  await startBackend(work);
  return works[work.work](work);
});

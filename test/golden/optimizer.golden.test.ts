import { AdamW, Ema, clipFactor, cosine, globalNorm } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, expect, it } from 'vitest';
import { type GoldenTensor, expectClose, goldenCases, tensorOf, useGoldenBackend } from './harness.js';

beforeAll(useGoldenBackend);
const tolerance = { absolute: 1e-6 };

for (const golden of goldenCases('optimizer_')) {
  it(`${golden.name}: clip, step, schedule and average as torch does`, async () => {
    const config = golden.config as { lr: number; weight_decay: number; betas: [number, number]; eps: number; clip_grad_norm: number; steps: number; scheduler: { T_max: number; eta_min: number }; ema_decay: number };
    const names = [...golden.tensors.keys()].filter((k) => k.startsWith('w.')).map((k) => k.slice(2));
    const parameters = names.map((name) => tf.variable(tensorOf(golden.get(`w.${name}`))));
    const [beta1, beta2] = config.betas;
    const optimizer = new AdamW(parameters, { beta1, beta2, epsilon: config.eps, weightDecay: config.weight_decay });
    const ema = new Ema(parameters, { decay: config.ema_decay });
    const schedule = cosine({ from: config.lr, to: config.scheduler.eta_min, steps: config.scheduler.T_max });
    for (let step = 0; step < config.steps; step++) {
      const gradients = names.map((name) => tensorOf(row(golden.get(`in.grad.${name}`), step)));
      const norm = await globalNorm(gradients);
      expect(norm).toBeCloseTo(golden.get('out.grad_norm').values[step]!, 4);
      expect(schedule(step)).toBeCloseTo(golden.get('out.lr').values[step]!, 9);
      optimizer.step(gradients, { lr: schedule(step), gradientScale: clipFactor(norm, config.clip_grad_norm) });
      ema.update();
      for (const [i, name] of names.entries()) {
        await expectClose(`param.${name} after ${step}`, parameters[i]!, row(golden.get(`out.param.${name}`), step), tolerance);
        await expectClose(`ema.${name} after ${step}`, ema.averages()[i]!, row(golden.get(`out.ema.${name}`), step), tolerance);
      }
    }
    for (const [i, name] of names.entries()) {
      await expectClose(`exp_avg.${name}`, optimizer.moments().m[i]!, golden.get(`out.exp_avg.${name}`), tolerance);
      await expectClose(`exp_avg_sq.${name}`, optimizer.moments().v[i]!, golden.get(`out.exp_avg_sq.${name}`), tolerance);
    }
  });
}

function row({ shape: [, ...shape], values }: GoldenTensor, index: number): GoldenTensor {
  const size = shape.reduce((a, b) => a * b, 1);
  return { shape, values: values.slice(index * size, (index + 1) * size) };
}

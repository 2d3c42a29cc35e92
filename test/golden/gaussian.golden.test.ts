import { type Denoiser, GaussianDiffusion, type GaussianDiffusionOptions, bitsPerDimension, classifierFreeGuidance, ddim, ddimInversion, ddpm, priorBits } from '@tinyfusion/diffusion';
import { DiT } from '@tinyfusion/models';
import { loadState } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { type GoldenCase, type GoldenTensor, expectClose, goldenCases, imagesOf, modelConfig, tensorOf, toStored, useGoldenBackend } from './harness.js';

beforeAll(useGoldenBackend);

interface Process {
  timestep_respacing?: string;
  noise_schedule: string;
  use_kl?: boolean;
  sigma_small?: boolean;
  predict_xstart?: boolean;
  learn_sigma?: boolean;
  rescale_learned_sigmas?: boolean;
  diffusion_steps: number;
}

/** The reference's `create_diffusion` settings as our options. */
function processOptions(p: Process): GaussianDiffusionOptions {
  return {
    schedule: p.noise_schedule === 'linear' ? 'linear' : 'squared-cosine',
    steps: p.diffusion_steps,
    respacing: p.timestep_respacing ?? '',
    prediction: p.predict_xstart === true ? 'start' : 'epsilon',
    variance: p.learn_sigma === true ? 'learned-range' : p.sigma_small === true ? 'fixed-small' : 'fixed-large',
    loss: p.use_kl === true ? 'rescaled-kl' : p.rescale_learned_sigmas === true ? 'rescaled-mse' : 'mse',
  };
}

async function build(golden: GoldenCase): Promise<DiT> {
  const dit = new DiT(modelConfig(golden.config['model']), { init: 'zeros' });
  await loadState(dit, golden.state());
  return dit;
}

/** Entry `index` of a stacked tensor, the first `rows` of its samples. */
function entry({ shape: [, ...shape], values }: GoldenTensor, index: number, rows = shape[0]!): GoldenTensor {
  const size = shape.reduce((a, b) => a * b, 1);
  return { shape: [rows, ...shape.slice(1)], values: values.slice(index * size, index * size + (size / shape[0]!) * rows) };
}

const integers = (t: GoldenTensor): number[] => Array.from(t.values);

for (const golden of goldenCases('gaussian_constants')) {
  it(`${golden.name}: tables`, () => {
    const diffusion = new GaussianDiffusion(processOptions(golden.config as unknown as Process));
    const { tables } = diffusion;
    const a = tables.alphasCumprod;
    const ours: Record<string, ArrayLike<number>> = {
      betas: tables.betas,
      alphas_cumprod: a,
      alphas_cumprod_prev: tables.alphasCumprodPrev,
      alphas_cumprod_next: tables.alphasCumprodNext,
      sqrt_alphas_cumprod: a.map(Math.sqrt),
      sqrt_one_minus_alphas_cumprod: a.map((v) => Math.sqrt(1 - v)),
      log_one_minus_alphas_cumprod: a.map((v) => Math.log(1 - v)),
      sqrt_recip_alphas_cumprod: a.map((v) => Math.sqrt(1 / v)),
      sqrt_recipm1_alphas_cumprod: a.map((v) => Math.sqrt(1 / v - 1)),
      posterior_variance: tables.posteriorVariance,
      posterior_log_variance_clipped: tables.posteriorLogVarianceClipped,
      posterior_mean_coef1: tables.posteriorMeanCoef1,
      posterior_mean_coef2: tables.posteriorMeanCoef2,
      timestep_map: diffusion.timestepMap,
    };
    for (const [name, reference] of golden.tensors) {
      const own = ours[name.slice(4)]!;
      for (const [i, value] of reference.values.entries()) expect(Math.abs(own[i]! - value), `${name}[${i}]`).toBeLessThanOrEqual(1e-6 * Math.abs(value));
    }
    const { rows, values } = JSON.parse(golden.metadata['float64']!) as { rows: number[]; values: Record<string, number[]> };
    for (const [name, list] of Object.entries(values)) {
      for (const [i, row] of rows.entries()) expect(Math.abs(ours[name]![row]! - list[i]!), `${name}[${row}] in float64`).toBeLessThanOrEqual(1e-12 * Math.abs(list[i]!));
    }
  });
}

for (const golden of goldenCases('gaussian_respacing')) {
  it(`${golden.name}: maps and betas`, () => {
    for (const [i, { diffusion_steps: steps, respacing }] of (golden.config['cases'] as { diffusion_steps: number; respacing: string }[]).entries()) {
      const { timestepMap, tables } = new GaussianDiffusion({ steps, respacing });
      expect(timestepMap, respacing).toEqual(integers(golden.get(`out.map.${i}`)));
      for (const [t, value] of golden.get(`out.betas.${i}`).values.entries()) expect(Math.abs(tables.betas[t]! - value)).toBeLessThanOrEqual(1e-6 * value);
    }
  });
}

for (const golden of goldenCases('gaussian_qsample')) {
  it(`${golden.name}: forward process`, async () => {
    const tolerance = { absolute: 2e-5, relative: 2e-5 };
    const diffusion = new GaussianDiffusion(processOptions(golden.config as unknown as Process));
    const [x0, noise, t] = [imagesOf(golden.get('in.x0')), imagesOf(golden.get('in.noise')), integers(golden.get('in.t'))];
    const x = diffusion.qSample(x0, t, noise) as tf.Tensor4D;
    await expectClose('x_t', toStored(x), golden.get('out.x_t'), tolerance);
    await expectClose('posterior_mean', toStored(diffusion.posteriorMean(x0, x, t) as tf.Tensor4D), golden.get('out.posterior_mean'), tolerance);
    await expectClose('posterior_variance', t.map((i) => diffusion.tables.posteriorVariance[i]!), golden.get('out.posterior_variance'), tolerance);
    await expectClose('xstart_from_eps', toStored(diffusion.startFromEpsilon(x, t, noise) as tf.Tensor4D), golden.get('out.xstart_from_eps'), tolerance);
    await expectClose('eps_from_xstart', toStored(diffusion.epsilonFromStart(x, t, x0) as tf.Tensor4D), golden.get('out.eps_from_xstart'), { absolute: 1e-3, relative: 2e-5 });
    await expectClose('prior_bpd', priorBits(diffusion, x0), golden.get('out.prior_bpd'), tolerance);
  });
}

for (const golden of goldenCases('gaussian_terms')) {
  describe(golden.name, () => {
    for (const process of golden.config['processes'] as (Process & { name: string })[]) {
      it(`${process.name}: terms and gradients`, async () => {
        const { name } = process;
        const dit = await build(golden);
        const diffusion = new GaussianDiffusion(processOptions(process));
        const labels = tensorOf(golden.get('in.y')) as tf.Tensor1D;
        const [x0, noise, t] = [imagesOf(golden.get('in.x0')), imagesOf(golden.get('in.noise')), integers(golden.get(`in.${name}.t`))];
        const denoiser: Denoiser = (x, s) => dit.forward(x as tf.Tensor4D, s, labels);
        const terms = diffusion.trainingLosses(denoiser, x0, t, noise);
        for (const key of ['mse', 'vb', 'loss'] as const) {
          if (golden.tensors.has(`out.${name}.${key}`)) await expectClose(key, terms[key]!, golden.get(`out.${name}.${key}`), { absolute: 1e-4, relative: 1e-4 });
        }
        const { grads } = tf.variableGrads(() => tf.mean(diffusion.trainingLosses(denoiser, x0, t, noise).loss), dit.parameters());
        for (const [path, parameter] of dit.namedParameters()) {
          const key = `grad.${name}.${path}`;
          if (golden.tensors.has(key)) await expectClose(key, grads[parameter.name]!, golden.get(key), { ofMax: 2e-4 });
        }
      });
    }
  });
}

for (const golden of goldenCases('gaussian_sample')) {
  it(`${golden.name}: a whole run, step by step`, async () => {
    const { sampler, eta, cfg_scale: scale, clip_denoised: clipDenoised } = golden.config as { sampler: string; eta: number | null; cfg_scale: number | null; clip_denoised: boolean };
    const dit = await build(golden);
    const diffusion = new GaussianDiffusion(processOptions(golden.config['process'] as Process));
    const labels = tensorOf(golden.get('in.y')) as tf.Tensor1D;
    const n = golden.get('in.z').shape[0]! / (scale === null ? 1 : 2);
    const model: Denoiser = (x, t) => dit.forward(x as tf.Tensor4D, t, labels);
    const denoiser = scale === null ? model : classifierFreeGuidance(model, { scale, channels: 3 });
    let draws = 0;
    const options = {
      noise: tf.slice(imagesOf(golden.get('in.z')), 0, n),
      noiseSource: () => imagesOf(entry(golden.get('in.noise'), draws++, n)),
      clipDenoised,
    };
    const run = sampler === 'ddim' ? ddim(diffusion, denoiser, { ...options, eta: eta! }) : ddpm(diffusion, denoiser, options);
    for await (const { step, t, x, xStart } of run) {
      // x₀ = x/√ᾱ − √(1/ᾱ − 1)·ε: early in the run float32's rounding of ε comes back up to 157 times as large
      const amplified = 2e-6 / Math.sqrt(diffusion.tables.alphasCumprod[t]!);
      await expectClose(`x after step ${step}`, toStored(x as tf.Tensor4D), entry(golden.get('out.samples'), step - 1, n), { ofMax: 1e-4 });
      await expectClose(`x₀ at step ${step}`, toStored(xStart as tf.Tensor4D), entry(golden.get('out.pred_xstart'), step - 1, n), { ofMax: 1e-4, absolute: amplified });
    }
    expect(draws).toBe(golden.get('in.noise').shape[0]);
  });
}

for (const golden of goldenCases('gaussian_reverse_step')) {
  it(`${golden.name}: one step of inversion, and the moments`, async () => {
    const tolerance = { absolute: 1e-4, relative: 1e-4 };
    const dit = await build(golden);
    const diffusion = new GaussianDiffusion(processOptions(golden.config['process'] as Process));
    const [x, y, t] = [imagesOf(golden.get('in.x')), golden.get('in.y').values as Int32Array, integers(golden.get('in.t'))];
    for (const [name, clipDenoised] of [['noclip', false], ['clip', true]] as const) {
      const denoiser: Denoiser = (z, s) => dit.forward(z as tf.Tensor4D, s, tf.tensor1d(y, 'int32'));
      const { mean, logVariance, xStart } = diffusion.predict(denoiser, x, t, { clipDenoised });
      await expectClose('mean', toStored(mean as tf.Tensor4D), golden.get(`out.pmv.${name}.mean`), tolerance);
      await expectClose('log_variance', toStored(logVariance as tf.Tensor4D), golden.get(`out.pmv.${name}.log_variance`), tolerance);
      await expectClose('pred_xstart', toStored(xStart as tf.Tensor4D), golden.get(`out.pmv.${name}.pred_xstart`), tolerance);
      // the iterator inverts a whole batch from t = 0 up; here each sample has a step of its own, so it is asked for one at a time
      for (const [row, step] of t.entries()) {
        const single: Denoiser = (z, s) => dit.forward(z as tf.Tensor4D, s, tf.tensor1d([y[row]!], 'int32'));
        const data = tf.slice(x, row, 1);
        const inversion = ddimInversion(diffusion, single, { noise: data, clipDenoised, from: step });
        const { value } = await inversion.next();
        const shape = golden.get(`out.${name}.sample`);
        const size = shape.values.length / t.length;
        await expectClose('sample', toStored(value!.x as tf.Tensor4D), { shape: [1], values: shape.values.slice(row * size, (row + 1) * size) }, tolerance);
        await inversion.return();
      }
    }
  });
}

for (const golden of goldenCases('gaussian_vlb')) {
  it(`${golden.name}: the bound in bits per dimension`, async () => {
    const tolerance = { absolute: 2e-4, relative: 2e-4 };
    const dit = await build(golden);
    const diffusion = new GaussianDiffusion(processOptions(golden.config['process'] as Process));
    const labels = tensorOf(golden.get('in.y')) as tf.Tensor1D;
    const x0 = imagesOf(golden.get('in.x0'));
    let draws = 0;
    let total = priorBits(diffusion, x0);
    await expectClose('prior_bpd', total, golden.get('out.prior_bpd'), tolerance);
    const column = (name: string, i: number): GoldenTensor => {
      const { shape, values } = golden.get(name);
      return { shape: [shape[0]!], values: Float32Array.from({ length: shape[0]! }, (_, n) => values[n * shape[1]! + i]!) };
    };
    const run = bitsPerDimension(diffusion, (x, t) => dit.forward(x as tf.Tensor4D, t, labels), x0, {
      noiseSource: () => imagesOf(entry(golden.get('in.noise'), draws++)),
      clipDenoised: golden.config['clip_denoised'] as boolean,
    });
    let i = 0;
    for await (const { vb, xStartMse, mse } of run) {
      await expectClose(`vb ${i}`, vb, column('out.vb', i), tolerance);
      await expectClose(`xstart_mse ${i}`, xStartMse, column('out.xstart_mse', i), tolerance);
      await expectClose(`mse ${i}`, mse, column('out.mse', i), tolerance);
      total = tf.add(total, vb);
      i++;
    }
    await expectClose('total_bpd', total, golden.get('out.total_bpd'), tolerance);
  });
}

import {
  type DiffusionForm,
  type InterpolantName,
  type OdeMethod,
  type TransportPrediction,
  Transport,
  type TransportOptions,
  classifierFreeGuidance,
  diffusionCoefficient,
  odeLogLikelihood,
  sampleOde,
  sampleSde,
} from '@tinyfusion/diffusion';
import { SiT } from '@tinyfusion/models';
import { captureFeatures, loadState } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { type GoldenCase, type GoldenTensor, expectClose, goldenCases, imagesOf, modelConfig, tensorOf, toStored, useGoldenBackend } from './harness.js';

beforeAll(useGoldenBackend);

async function build({ config, state }: GoldenCase): Promise<SiT> {
  const sit = new SiT(modelConfig(config['model']), { init: 'zeros' });
  await loadState(sit, state());
  return sit;
}

/** The i-th entry along the first axis. */
function entry({ shape, values }: GoldenTensor, i: number): GoldenTensor {
  const [, ...rest] = shape;
  const size = rest.reduce((a, b) => a * b, 1);
  return { shape: rest, values: values.slice(i * size, (i + 1) * size) };
}

/** The first half along the first axis: upstream carries guided batches twice. */
const firstHalf = ({ shape: [n = 0, ...rest], values }: GoldenTensor): GoldenTensor => ({ shape: [n / 2, ...rest], values: values.slice(0, values.length / 2) });

const pathOf = (name: string) => name.toLowerCase() as InterpolantName;

/** The model with its classes, guided where asked. */
function denoiserOf(sit: SiT, labels: Int32Array, cfgScale: number | null) {
  const y = tf.tensor1d(labels, 'int32');
  if (cfgScale === null) return (x: tf.Tensor, t: tf.Tensor1D) => sit.forward(x as tf.Tensor4D, t, y);
  const both = tf.concat([y, tf.fill(y.shape, sit.nullClass, 'int32')]) as tf.Tensor1D;
  return classifierFreeGuidance((x, t) => sit.forward(x as tf.Tensor4D, t, both), { scale: cfgScale });
}

for (const golden of goldenCases('sit_forward')) {
  describe(golden.name, () => {
    const values = { absolute: 1e-4, relative: 1e-4 };

    it('puts out what the reference does, block by block', async () => {
      const sit = await build(golden);
      const capture = captureFeatures(sit.blocks.map((_, i) => i));
      const y = sit.forward(imagesOf(golden.get('in.x')), tensorOf(golden.get('in.t')) as tf.Tensor1D, tensorOf(golden.get('in.y')) as tf.Tensor1D, { hook: capture.hook });
      for (const [i, feature] of capture.take()) await expectClose(`block.${i}`, feature, golden.get(`out.block.${i}`), values);
      await expectClose('y', toStored(y), golden.get('out.y'), values);
    });

    it('has its gradients', async () => {
      const sit = await build(golden);
      const [x, t, y] = [imagesOf(golden.get('in.x')), tensorOf(golden.get('in.t')) as tf.Tensor1D, tensorOf(golden.get('in.y')) as tf.Tensor1D];
      const { value, grads } = tf.variableGrads(() => tf.mean(tf.square(sit.forward(x, t, y))), sit.parameters());
      await expectClose('loss', value, golden.get('out.loss'), values);
      for (const [name, parameter] of sit.namedParameters()) {
        if (golden.tensors.has(`grad.${name}`)) await expectClose(`grad.${name}`, grads[parameter.name]!, golden.get(`grad.${name}`), { ofMax: 2e-4, absolute: 1e-7 });
      }
      if (golden.tensors.has('grad.in.x')) {
        const dx = tf.grad((input: tf.Tensor) => tf.mean(tf.square(sit.forward(input as tf.Tensor4D, t, y))))(x) as tf.Tensor4D;
        await expectClose('grad.in.x', toStored(dx), golden.get('grad.in.x'), { ofMax: 2e-4, absolute: 1e-7 });
      }
    });

    it('guides as forward_with_cfg does', async () => {
      const sit = await build(golden);
      const x = imagesOf(firstHalf(golden.get('in.cfg_x')));
      const t = tensorOf(firstHalf(golden.get('in.cfg_t'))) as tf.Tensor1D;
      const labels = tensorOf(golden.get('in.cfg_y')) as tf.Tensor1D;
      const guided = classifierFreeGuidance((z, s) => sit.forward(z as tf.Tensor4D, s, labels), { scale: golden.config['cfg_scale'] as number });
      await expectClose('cfg', toStored(guided(x, t) as tf.Tensor4D), firstHalf(golden.get('out.cfg')), values);
    });
  });
}

for (const golden of goldenCases('sit_functions')) {
  describe(golden.name, () => {
    const { paths, predictions, forms, norm } = golden.config as { paths: string[]; predictions: TransportPrediction[]; forms: string[]; norm: number };
    const t = golden.get('in.t').values;

    for (const path of paths.map(pathOf)) {
      const sigmaIsSmall = () => Math.min(...Array.from(t, (s) => new Transport({ path }).path.sigma(s))) < 0.1;
      const tolerance = () => ({ absolute: 1e-4, relative: sigmaIsSmall() ? 1e-3 : 1e-4 });

      it(`${path}: coefficients`, async () => {
        const p = new Transport({ path }).path;
        const functions = { alpha: p.alpha, d_alpha: p.alphaRate, sigma: p.sigma, d_sigma: p.sigmaRate, alpha_ratio: p.logAlphaRate, drift_var: p.scoreWeight };
        for (const [name, f] of Object.entries(functions)) await expectClose(name, Array.from(t, (s) => f(s)), golden.get(`out.${path}.${name}`), tolerance());
        for (const form of forms) {
          const ours = form.toLowerCase().replace('inccreasing', 'increasing') as DiffusionForm;
          await expectClose(form, Array.from(t, (s) => diffusionCoefficient(p, ours, s, norm)), golden.get(`out.${path}.diffusion.${form}`), tolerance());
        }
      });

      it(`${path}: conversions`, async () => {
        const sit = await build(golden);
        const x = imagesOf(golden.get('in.x'));
        const labels = tensorOf(golden.get('in.y')) as tf.Tensor1D;
        const transport = new Transport({ path });
        const output = sit.forward(x, tf.tensor1d(t), labels);
        await expectClose('drift_mean', toStored(tf.neg(tf.mul(transport.coefficient(x, t, transport.path.logAlphaRate), x)) as tf.Tensor4D), golden.get(`out.${path}.drift_mean`), tolerance());
        await expectClose('score', toStored(transport.scoreFromVelocity(output, x, t) as tf.Tensor4D), golden.get(`out.${path}.score_from_velocity`), tolerance());
        await expectClose('noise', toStored(transport.noiseFromVelocity(output, x, t) as tf.Tensor4D), golden.get(`out.${path}.noise_from_velocity`), tolerance());
        await expectClose('velocity', toStored(transport.velocityFromScore(output, x, t) as tf.Tensor4D), golden.get(`out.${path}.velocity_from_score`), tolerance());
        for (const prediction of predictions) {
          const typed = new Transport({ path, prediction });
          await expectClose(`drift ${prediction}`, toStored(typed.velocity(output, x, t) as tf.Tensor4D), golden.get(`out.drift.${path}.${prediction}`), tolerance());
          await expectClose(`score ${prediction}`, toStored(typed.score(output, x, t) as tf.Tensor4D), golden.get(`out.score.${path}.${prediction}`), tolerance());
        }
      });
    }
  });
}

for (const golden of goldenCases('sit_losses')) {
  const runs = golden.config['runs'] as { key: string; path: string; prediction: TransportPrediction; loss_weight: TransportOptions['lossWeight'] | null; t0: number; t1: number }[];
  for (const { key, path, prediction, loss_weight, t0, t1 } of runs) {
    it(`${golden.name}: ${key}`, async () => {
      const sit = await build(golden);
      const transport = new Transport({ path: pathOf(path), prediction, lossWeight: loss_weight ?? 'none' });
      const [start, end] = transport.interval({ training: true });
      expect([start, end].map(Math.fround)).toEqual([t0, t1].map(Math.fround));
      const [data, noise] = [imagesOf(golden.get('in.x1')), imagesOf(golden.get('in.x0'))];
      const name = `${pathOf(path)}.${prediction}`;
      const t = golden.get(`out.t.${name}`).values;
      await expectClose('t', Array.from(golden.get('in.u').values, (u) => u * (end - start) + start), golden.get(`out.t.${name}`), { absolute: 1e-6 });
      const loose = { absolute: 2e-4, relative: path === 'VP' ? 1e-3 : 2e-4 };
      await expectClose('xt', toStored(transport.interpolate(data, t, noise) as tf.Tensor4D), golden.get(`out.xt.${name}`), loose);
      await expectClose('ut', toStored(transport.velocityTarget(data, t, noise) as tf.Tensor4D), golden.get(`out.ut.${name}`), loose);
      const denoiser = denoiserOf(sit, golden.get('in.y').values as Int32Array, null);
      const loss = transport.trainingLosses(denoiser, data, t, noise).loss;
      await expectClose('loss', loss, golden.get(`out.loss.${key}`), loose);
      const gradients = [...golden.tensors.keys()].filter((k) => k.startsWith(`grad.${key}.`));
      expect(gradients.length, 'stored gradients').toBeGreaterThan(0);
      const { grads } = tf.variableGrads(() => tf.mean(transport.trainingLosses(denoiser, data, t, noise).loss), sit.parameters());
      for (const [parameterName, parameter] of sit.namedParameters()) {
        const stored = `grad.${key}.${parameterName}`;
        if (golden.tensors.has(stored)) await expectClose(stored, grads[parameter.name]!, golden.get(stored), { ofMax: 5e-4, absolute: 1e-7 });
      }
    });
  }
}

for (const golden of goldenCases('sit_ode')) {
  const runs = golden.config['runs'] as { name: string; path: string; prediction: TransportPrediction; method: OdeMethod; num_steps: number; atol: number; rtol: number; reverse: boolean; cfg_scale: number | null; nfe: number }[];
  for (const { name, path, prediction, method, num_steps, atol, rtol, reverse, cfg_scale, nfe } of runs) {
    it(`${golden.name}: ${name}`, async () => {
      const sit = await build(golden);
      const noise = imagesOf(golden.get('in.z'));
      const times: number[] = [];
      const inner = denoiserOf(sit, golden.get('in.y').values as Int32Array, cfg_scale);
      const denoiser = (x: tf.Tensor, t: tf.Tensor1D) => {
        times.push(t.dataSync()[0]!);
        return inner(x, t);
      };
      const states = golden.get(`out.${name}.xs`);
      const wanted = (i: number) => (cfg_scale === null ? entry(states, i) : firstHalf(entry(states, i)));
      const tight = name.includes('tight');
      const tolerance = { ofMax: method !== 'dopri5' ? 2e-4 : tight ? 1e-4 : 1e-3 };
      await expectClose('start', toStored(noise), wanted(0), { absolute: 0 });
      const transport = new Transport({ path: pathOf(path), prediction });
      const sampling = sampleOde(transport, denoiser, { noise, method, steps: num_steps - 1, absoluteTolerance: atol, relativeTolerance: rtol, reverse });
      let evaluations = 0;
      for await (const step of sampling) {
        await expectClose(`state ${step.step}`, toStored(step.x as tf.Tensor4D), wanted(step.step), tolerance);
        evaluations = step.evaluations;
      }
      expect(evaluations, 'evaluations').toBe(nfe);
      // an adaptive method's later steps follow an error estimate that is all rounding on so smooth a model
      const stored = golden.get(`out.${name}.t_evals`);
      const compared = method === 'dopri5' ? 2 : stored.values.length;
      await expectClose('times', times.slice(0, compared), { shape: [compared], values: stored.values.slice(0, compared) }, { absolute: 5e-5 });
    });
  }
}

for (const golden of goldenCases('sit_sde')) {
  const runs = golden.config['runs'] as { name: string; path: string; prediction: TransportPrediction; method: string; diffusion_form: string; diffusion_norm: number; last_step: string | null; last_step_size: number; num_steps: number; cfg_scale: number | null }[];
  for (const { name, path, prediction, method, diffusion_form, diffusion_norm, last_step, last_step_size, num_steps, cfg_scale } of runs) {
    it(`${golden.name}: ${name}`, async () => {
      const sit = await build(golden);
      const half = (x: GoldenTensor) => (cfg_scale === null ? x : firstHalf(x));
      const draws = golden.get(`in.${name}.noise`);
      let draw = 0;
      const states = golden.get(`out.${name}.xs`);
      const sampling = sampleSde(new Transport({ path: pathOf(path), prediction }), denoiserOf(sit, golden.get('in.y').values as Int32Array, cfg_scale), {
        noise: imagesOf(golden.get('in.z')),
        noiseSource: () => imagesOf(half(entry(draws, draw++))),
        method: method.toLowerCase() as 'euler' | 'heun',
        form: diffusion_form.toLowerCase().replace('inccreasing', 'increasing') as DiffusionForm,
        norm: diffusion_norm,
        lastStep: (last_step ?? 'none').toLowerCase() as 'mean' | 'euler' | 'tweedie' | 'none',
        lastStepSize: last_step_size,
        steps: num_steps,
      });
      const tolerance = { ofMax: prediction === 'velocity' ? 2e-4 : 1e-3 };
      for await (const { step, x } of sampling) await expectClose(`state ${step}`, toStored(x as tf.Tensor4D), half(entry(states, step - 1)), tolerance);
      expect(draw, 'draws').toBe(num_steps - 1);
    });
  }
}

for (const golden of goldenCases('sit_likelihood')) {
  const { runs, path, prediction } = golden.config as { runs: { method: OdeMethod; num_steps: number }[]; path: string; prediction: TransportPrediction };
  for (const { method, num_steps } of runs) {
    it(`${golden.name}: ${method}`, async () => {
      const sit = await build(golden);
      const probes = golden.get(`in.${method}.eps`);
      let draw = 0;
      const { logLikelihood, noise } = await odeLogLikelihood(new Transport({ path: pathOf(path), prediction }), denoiserOf(sit, golden.get('in.y').values as Int32Array, null), imagesOf(golden.get('in.x')), {
        method,
        steps: num_steps - 1,
        probes: () => imagesOf(entry(probes, draw++)),
      });
      expect(draw, 'probes').toBe(probes.shape[0]);
      await expectClose('log likelihood', logLikelihood, golden.get(`out.${method}.logp`), { absolute: 1e-3, relative: 1e-4 });
      await expectClose('noise', toStored(noise as tf.Tensor4D), golden.get(`out.${method}.z`), { ofMax: 2e-4 });
    });
  }
}

import { classifierFreeGuidance } from '@tinyfusion/diffusion';
import { DiffusionHead, MAR, type MARConfig, TokenMask, marDiffusion, marLoss, sampleMAR } from '@tinyfusion/models';
import { captureFeatures, hooksByStack, loadState } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { type GoldenCase, type GoldenTensor, expectClose, goldenCases, imagesOf, tensorOf, toStored, useGoldenBackend } from './harness.js';

beforeAll(useGoldenBackend);

const values = { absolute: 1e-4, relative: 1e-4 };

/** The reference's settings as ours. */
function configOf(settings: unknown): MARConfig {
  const s = settings as Record<string, number>;
  return {
    inputSize: s['img_size']! / s['vae_stride']!,
    patchSize: s['patch_size']!,
    inChannels: s['vae_embed_dim']!,
    encoderWidth: s['encoder_embed_dim']!,
    encoderDepth: s['encoder_depth']!,
    encoderHeads: s['encoder_num_heads']!,
    decoderWidth: s['decoder_embed_dim']!,
    decoderDepth: s['decoder_depth']!,
    decoderHeads: s['decoder_num_heads']!,
    mlpRatio: s['mlp_ratio']!,
    normEpsilon: s['norm_eps']!,
    numClasses: s['class_num']!,
    bufferSize: s['buffer_size']!,
    headDepth: s['diffloss_d']!,
    headWidth: s['diffloss_w']!,
    maskRatioMin: s['mask_ratio_min']!,
    labelDropProb: s['label_drop_prob']!,
    attentionDropout: s['attn_dropout']!,
    projectionDropout: s['proj_dropout']!,
    diffusionBatchMul: s['diffusion_batch_mul']!,
  };
}

async function build({ config, state }: GoldenCase): Promise<MAR> {
  const mar = new MAR(configOf(config['model']), { init: 'zeros' });
  await loadState(mar, state());
  return mar;
}

const maskOf = ({ shape: [n, l], values: masked }: GoldenTensor) => new TokenMask(n!, l!, Uint8Array.from(masked));
const rowsOf = ({ shape, values: all }: GoldenTensor, count: number): GoldenTensor => ({ shape: [count, ...shape.slice(1)], values: all.slice(0, (all.length / shape[0]!) * count) });

for (const golden of goldenCases('mar_diffnet')) {
  describe(golden.name, () => {
    async function head(): Promise<DiffusionHead> {
      const s = golden.config['net'] as Record<string, number>;
      const net = new DiffusionHead({ channels: s['in_channels']!, width: s['model_channels']!, outChannels: s['out_channels']!, conditionWidth: s['z_channels']!, depth: s['num_res_blocks']! }, 'zeros');
      await loadState(net, golden.state());
      return net;
    }
    const inputs = () => [tensorOf(golden.get('in.x')), tf.cast(tensorOf(golden.get('in.t')), 'float32'), tensorOf(golden.get('in.c'))] as [tf.Tensor2D, tf.Tensor1D, tf.Tensor2D];

    it('puts out what the reference does, and its gradients', async () => {
      const net = await head();
      const [x, t, c] = inputs();
      await expectClose('y', net.forward(x, t, c), golden.get('out.y'), values);
      const { value, grads } = tf.variableGrads(() => tf.mean(tf.square(net.forward(x, t, c))), net.parameters());
      await expectClose('loss', value, golden.get('out.loss'), values);
      for (const [name, parameter] of net.namedParameters()) {
        if (golden.tensors.has(`grad.${name}`)) await expectClose(`grad.${name}`, grads[parameter.name]!, golden.get(`grad.${name}`), { ofMax: 2e-4, absolute: 1e-7 });
      }
      const inner = tf.grads((a: tf.Tensor, b: tf.Tensor) => tf.mean(tf.square(net.forward(a as tf.Tensor2D, t, b as tf.Tensor2D))))([x, c]);
      for (const [name, grad] of [['grad.in.x', inner[0]!], ['grad.in.c', inner[1]!]] as const) if (golden.tensors.has(name)) await expectClose(name, grad, golden.get(name), { ofMax: 2e-4, absolute: 1e-7 });
    });

    it('guides as forward_with_cfg does', async () => {
      const net = await head();
      const [x, t, c] = inputs();
      const both = tf.concat([c, tf.reverse(c, 0)], 0) as tf.Tensor2D;
      const guided = classifierFreeGuidance((z, s) => net.forward(z as tf.Tensor2D, s, both), { scale: golden.config['cfg_scale'] as number, channels: 'all' });
      await expectClose('cfg', guided(x, t), rowsOf(golden.get('out.cfg'), x.shape[0]), values);
    });
  });
}

for (const golden of goldenCases('mar_forward')) {
  describe(golden.name, () => {
    it('cuts into patches and back', async () => {
      const mar = await build(golden);
      const patches = mar.patchify(imagesOf(golden.get('in.latents')));
      await expectClose('patches', patches, golden.get('out.patches'), { absolute: 0 });
      await expectClose('unpatchified', toStored(mar.unpatchify(patches)), golden.get('out.unpatchified'), { absolute: 0 });
    });

    it('puts out what the reference does, block by block, with and without a class', async () => {
      const mar = await build(golden);
      const tokens = mar.patchify(imagesOf(golden.get('in.latents')));
      const mask = maskOf(golden.get('in.mask'));
      const [encoder, decoder] = [captureFeatures(mar.encoder_blocks.map((_, i) => i)), captureFeatures(mar.decoder_blocks.map((_, i) => i))];
      const hook = hooksByStack({ encoder_blocks: encoder.hook, decoder_blocks: decoder.hook });
      const known = mar.encode(tokens, mask, mar.classEmbedding(tensorOf(golden.get('in.labels')) as tf.Tensor1D), { hook });
      const z = mar.decode(known, mask, { hook });
      for (const [i, feature] of encoder.take()) await expectClose(`encoder ${i}`, feature, golden.get(`out.encoder_block.${i}`), values);
      for (const [i, feature] of decoder.take()) await expectClose(`decoder ${i}`, feature, golden.get(`out.decoder_block.${i}`), values);
      await expectClose('encoder', known, golden.get('out.encoder'), values);
      await expectClose('decoder', z, golden.get('out.decoder'), values);
      const labels = tensorOf(golden.get('in.labels')) as tf.Tensor1D;
      const none = mar.encode(tokens, mask, mar.classEmbedding(labels, tf.ones(labels.shape)));
      await expectClose('encoder without class', none, golden.get('out.encoder_uncond'), values);
      await expectClose('decoder without class', mar.decode(none, mask), golden.get('out.decoder_uncond'), values);
    });

    it('has its gradients', async () => {
      const mar = await build(golden);
      const mask = maskOf(golden.get('in.mask'));
      const labels = tensorOf(golden.get('in.labels')) as tf.Tensor1D;
      const latents = imagesOf(golden.get('in.latents'));
      const loss = (x: tf.Tensor) => tf.mean(tf.square(mar.decode(mar.encode(mar.patchify(x as tf.Tensor4D), mask, mar.classEmbedding(labels)), mask)));
      const used = mar.parameters().filter((p) => p !== mar.fake_latent && ![...mar.diffloss.parameters()].includes(p));
      const { value, grads } = tf.variableGrads(() => loss(latents) as tf.Scalar, used);
      await expectClose('loss', value, golden.get('out.loss'), values);
      for (const [name, parameter] of mar.namedParameters()) {
        if (golden.tensors.has(`grad.${name}`)) await expectClose(`grad.${name}`, grads[parameter.name]!, golden.get(`grad.${name}`), { ofMax: 2e-4, absolute: 1e-7 });
      }
      for (const name of ['grad.in.latents', 'grad.in.x']) if (golden.tensors.has(name)) await expectClose(name, toStored(tf.grad(loss)(latents) as tf.Tensor4D), golden.get(name), { ofMax: 2e-4, absolute: 1e-7 });
    });

    it('leaves no tensor behind', async () => {
      const mar = await build(golden);
      const tokens = mar.patchify(imagesOf(golden.get('in.latents')));
      const mask = maskOf(golden.get('in.mask'));
      const condition = mar.classEmbedding(tensorOf(golden.get('in.labels')) as tf.Tensor1D);
      const once = () => {
        const known = mar.encode(tokens, mask, condition);
        mar.decode(known, mask).dispose();
        known.dispose();
      };
      once();
      const before = tf.memory().numTensors;
      for (let i = 0; i < 50; i++) once();
      expect(tf.memory().numTensors).toBe(before);
    });
  });
}

for (const golden of goldenCases('mar_train')) {
  it(`${golden.name}: the training loss and its gradients`, async () => {
    const mar = await build(golden);
    const { config } = mar;
    const orders = golden.get('in.orders');
    const [samples, length] = orders.shape as [number, number];
    const split = Array.from({ length: samples }, (_, n) => Int32Array.from(orders.values.slice(n * length, (n + 1) * length)));
    const rate = Number(golden.metadata['mask_rate_f64'] ?? golden.get('in.mask_rate').values[0]);
    const mask = TokenMask.ofOrders(split, Math.ceil(length * rate));
    expect(Array.from(mask.masked)).toEqual(Array.from(golden.get('in.mask').values, Number));
    // ours runs the head on masked tokens alone
    const rows = Array.from({ length: config.diffusionBatchMul }, (_, m) => Array.from(mask.maskedRows(), (row) => m * samples * length + row)).flat();
    const noise = golden.get('in.noise');
    const width = noise.shape[1]!;
    const draws = {
      mask,
      drop: Float32Array.from(golden.get('in.drop_rand').values, (u) => (u < config.labelDropProb ? 1 : 0)),
      t: Int32Array.from(rows, (row) => golden.get('in.t').values[row]!),
      noise: Float32Array.from(rows.flatMap((row) => Array.from(noise.values.slice(row * width, (row + 1) * width), Number))),
    };
    const diffusion = marDiffusion();
    const latents = imagesOf(golden.get('in.latents'));
    const labels = tensorOf(golden.get('in.labels')) as tf.Tensor1D;
    const { value, grads } = tf.variableGrads(() => marLoss(mar, diffusion, latents, labels, draws), mar.parameters());
    await expectClose('loss', value, golden.get('out.loss'), { relative: 2e-4 });
    for (const [name, parameter] of mar.namedParameters()) {
      if (golden.tensors.has(`grad.${name}`)) await expectClose(`grad.${name}`, grads[parameter.name]!, golden.get(`grad.${name}`), { ofMax: 3e-4, absolute: 1e-8 });
    }
    const known = mar.encode(mar.patchify(latents), mask, mar.classEmbedding(labels, tf.tensor1d(draws.drop)));
    await expectClose('z', mar.decode(known, mask), golden.get('out.z'), values);
  });
}

for (const golden of goldenCases('mar_tokens')) {
  it(`${golden.name}: generates what the reference does`, async () => {
    const mar = await build(golden);
    const { num_iter, cfg, cfg_schedule, temperature, labels, cfg_per_iter, model } = golden.config as {
      num_iter: number;
      cfg: number;
      cfg_schedule: 'linear' | 'constant';
      temperature: number;
      labels: boolean;
      cfg_per_iter: number[];
      model: { num_sampling_steps: string };
    };
    const orders = golden.get('in.orders');
    const [samples, length] = orders.shape as [number, number];
    // the start of an iteration's diffusion, then one draw a step; upstream also draws for the half that it ignores
    let iteration = 0;
    let draw = 0;
    const noiseSource = (shape: readonly number[]): tf.Tensor => {
      const steps = golden.get(`in.step_noise.${iteration}`);
      const [count, rows, width] = steps.shape as [number, number, number];
      const tensor = draw === 0 ? tensorOf(golden.get(`in.init_noise.${iteration}`)) : tf.tensor(steps.values.slice((draw - 1) * rows * width, (draw - 1) * rows * width + shape[0]! * width) as Float32Array, [shape[0]!, width]);
      draw += 1;
      if (draw > count) [iteration, draw] = [iteration + 1, 0];
      expect(tensor.shape).toEqual(shape);
      return tensor;
    };
    const before = tf.memory().numTensors;
    const sampling = sampleMAR(mar, {
      labels: labels ? Array.from(golden.get('in.labels').values) : Array.from({ length: samples }, () => null),
      rng: undefined as never,
      iterations: num_iter,
      steps: model.num_sampling_steps,
      guidance: cfg,
      guidanceSchedule: cfg_schedule,
      temperature,
      orders: Array.from({ length: samples }, (_, n) => Int32Array.from(orders.values.slice(n * length, (n + 1) * length))),
      noiseSource,
    });
    const tolerance = { ofMax: golden.metadata['tolerance']!.startsWith('5e-3') ? 5e-3 : 1e-4 };
    let last: tf.Tensor4D | undefined;
    for await (const { step, masked, guidance, x } of sampling) {
      expect(guidance, 'guidance').toBeCloseTo(cfg_per_iter[step - 1]!, 6);
      const next = Array.from(golden.get(`out.mask_next.${step - 1}`).values.slice(0, length), Number).reduce((a, b) => a + b, 0);
      if (step < num_iter) expect(masked, 'masked tokens').toBe(next);
      last = x;
    }
    const stored = toStored(last!);
    await expectClose('tokens', stored, golden.get('out.tokens'), tolerance);
    tf.dispose([stored, last!]);
    expect(iteration, 'iterations that drew noise').toBe(num_iter);
    expect(tf.memory().numTensors, 'tensors left').toBe(before);
  });
}

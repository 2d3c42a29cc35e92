import { classifierFreeGuidance } from '@tinyfusion/diffusion';
import { DiT, positionEmbedding, timestepEmbedding } from '@tinyfusion/models';
import { captureFeatures, loadState } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { expectClose, goldenCases, imagesOf, modelConfig, tensorOf, toStored, useGoldenBackend } from './harness.js';

beforeAll(useGoldenBackend);
const values = { absolute: 1e-4, relative: 1e-4 };
const gradients = { ofMax: 1e-4, absolute: 1e-7 };

for (const golden of goldenCases('dit_')) {
  describe(golden.name, () => {
    const { config } = golden;
    async function build(): Promise<DiT> {
      const dit = new DiT(modelConfig(config['model']), { init: 'zeros' });
      await loadState(dit, golden.state());
      return dit;
    }

    it('puts out what the reference does, block by block', async () => {
      const dit = await build();
      const capture = captureFeatures(dit.blocks.map((_, i) => i));
      const x = imagesOf(golden.get('in.x'));
      const t = tensorOf(golden.get('in.t')) as tf.Tensor1D;
      const y = dit.forward(x, t, tensorOf(golden.get('in.y')) as tf.Tensor1D, { hook: capture.hook });
      await expectClose('patch', dit.x_embedder.forward(x), golden.get('out.patch'), values);
      await expectClose('t_emb', dit.t_embedder.forward(t), golden.get('out.t_emb'), values);
      for (const [i, feature] of capture.take()) await expectClose(`block.${i}`, feature, golden.get(`out.block.${i}`), values);
      await expectClose('y', toStored(y), golden.get('out.y'), values);
    });

    it('has its gradients', async () => {
      const dit = await build();
      const x = imagesOf(golden.get('in.x'));
      const t = tensorOf(golden.get('in.t')) as tf.Tensor1D;
      const y = tensorOf(golden.get('in.y')) as tf.Tensor1D;
      const { value, grads } = tf.variableGrads(() => tf.mean(tf.square(dit.forward(x, t, y))), dit.parameters());
      await expectClose('loss', value, golden.get('out.loss'), values);
      for (const [name, parameter] of dit.namedParameters()) {
        if (golden.tensors.has(`grad.${name}`)) await expectClose(`grad.${name}`, grads[parameter.name]!, golden.get(`grad.${name}`), gradients);
      }
      const dx = tf.grad((input: tf.Tensor) => tf.mean(tf.square(dit.forward(input as tf.Tensor4D, t, y))))(x) as tf.Tensor4D;
      await expectClose('grad.in.x', toStored(dx), golden.get('grad.in.x'), gradients);
    });

    // a model without dropout has no class to put in a dropped one's place
    it.skipIf(!golden.tensors.has('in.drop_rand'))('drops labels where the reference did', async () => {
      const dit = await build();
      const p = dit.config.classDropoutProb;
      const drop = tf.tensor1d(Array.from(golden.get('in.drop_rand').values, (u) => (u < p ? 1 : 0)), 'int32');
      const y = dit.forward(imagesOf(golden.get('in.x')), tensorOf(golden.get('in.t')) as tf.Tensor1D, tensorOf(golden.get('in.train_y')) as tf.Tensor1D, { drop });
      await expectClose('train_y', toStored(y), golden.get('out.train_y'), values);
    });

    it('guides as forward_with_cfg does', async () => {
      const dit = await build();
      const labels = tensorOf(golden.get('in.cfg_y')) as tf.Tensor1D;
      const [n] = golden.get('in.cfg_x').shape as [number];
      const x = tf.slice(imagesOf(golden.get('in.cfg_x')), 0, n / 2);
      const t = tf.slice(tensorOf(golden.get('in.cfg_t')) as tf.Tensor1D, 0, n / 2);
      const guided = classifierFreeGuidance((z, s) => dit.forward(z as tf.Tensor4D, s, labels), { scale: config['cfg_scale'] as number, channels: 3 });
      // the reference returns the guided half twice; samplers go on with the first
      const { shape, values: all } = golden.get('out.cfg');
      await expectClose('cfg', toStored(guided(x, t) as tf.Tensor4D), { shape: [n / 2, ...shape.slice(1)], values: all.slice(0, all.length / 2) }, values);
    });

    it('leaves no tensor behind', async () => {
      const dit = await build();
      const x = imagesOf(golden.get('in.x'));
      const t = tensorOf(golden.get('in.t')) as tf.Tensor1D;
      const y = tensorOf(golden.get('in.y')) as tf.Tensor1D;
      dit.forward(x, t, y).dispose();
      const before = tf.memory().numTensors;
      for (let i = 0; i < 50; i++) dit.forward(x, t, y).dispose();
      expect(tf.memory().numTensors).toBe(before);
    });
  });
}

for (const golden of goldenCases('embeddings')) {
  describe(golden.name, () => {
    const config = golden.config as { timestep_dims: number[]; max_period: number; pos: { dim: number; grid: number; rows: number[] | null }[]; pos_cls: { dim: number; grid: number; extra_tokens: number } };

    it('embeds timesteps', async () => {
      const t = tensorOf(golden.get('in.t')) as tf.Tensor1D;
      for (const dim of config.timestep_dims) await expectClose(`temb.${dim}`, timestepEmbedding(t, dim, config.max_period), golden.get(`out.temb.${dim}`), { absolute: 1e-4 });
    });

    it('embeds positions', async () => {
      for (const { dim, grid, rows } of config.pos) {
        const table = positionEmbedding(dim, grid);
        const wanted = rows === null ? table : Float32Array.from(rows.flatMap((row) => [...table.subarray(row * dim, (row + 1) * dim)]));
        await expectClose(`pos.${dim}.${grid}`, wanted, golden.get(`out.pos.${dim}.${grid}`), { absolute: 1e-6 });
      }
      const { dim, grid, extra_tokens } = config.pos_cls;
      await expectClose('pos_cls', positionEmbedding(dim, grid, extra_tokens), golden.get('out.pos_cls'), { absolute: 1e-6 });
    });
  });
}

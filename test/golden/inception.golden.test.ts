import { Inception, inceptionShapes, prepareImages } from '@tinyfusion/eval';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { formulaState } from './formula-weights.js';
import { expectClose, goldenCases, useGoldenBackend } from './harness.js';

/** A software WebGPU adapter takes minutes for a pass. */
const LONG = 900_000;

/** There CI sees each preprocessing on one of the cases; elsewhere, and by hand, on both. */
const alternating = process.env['TINYFUSION_BACKEND'] === 'webgpu' && process.env['CI'] !== undefined && process.env['TINYFUSION_GOLDEN'] === undefined;

let net: Inception | undefined;
beforeAll(useGoldenBackend);

for (const [i, golden] of goldenCases('inception_').entries()) {
  const { weights, image, image_sum } = golden.config as { weights: { gain: number }; image: { n: number; height: number; width: number; a: number; b: number; d: number; s: number }; image_sum: number };
  const tolerance = { ofMax: 2e-4 };
  describe(golden.name, () => {
    /** The formula's images, `[n, h, w, 3]`. */
    function images(): tf.Tensor4D {
      const { n: count, height, width, a, b, d, s } = image;
      const values = new Float32Array(count * height * width * 3);
      let i = 0;
      for (let n = 0; n < count; n++) for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++) values[i++] = (a * x * (c + 1) + b * y * (3 - c) + d * n + ((x * y) >> s) * (n + 1)) & 255;
      expect(values.reduce((sum, v) => sum + v, 0)).toBe(image_sum);
      return tf.tensor4d(values, [count, height, width, 3]);
    }

    it.skipIf(alternating && i % 2 === 1)('gives the features of torch-fidelity', async () => {
      net ??= await Inception.load(formulaState(Object.fromEntries(inceptionShapes()), weights.gain));
      const x = images();
      const blocks = new Map<string, tf.Tensor2D>();
      const out = net.forward(x, { onBlock: (name, block) => void blocks.set(name, tf.keep(tf.mean(block, [1, 2]))) });
      const named = { '64': out[64], '192': out[192], '768': out[768], '2048': out[2048], logits_unbiased: out.logitsUnbiased, logits: out.logits, spatial: out.spatial };
      for (const [name, tensor] of Object.entries(named)) await expectClose(name, tensor, golden.get(`out.${name}`), tolerance);
      for (const name of golden.tensors.keys()) {
        const block = /^out\.mean\.(.+)$/.exec(name)?.[1];
        if (block !== undefined) await expectClose(block, blocks.get(block)!, golden.get(name), tolerance);
      }
      tf.dispose([...blocks.values(), out as never]);
    }, LONG);

    it.skipIf(alternating && i % 2 === 0)('gives the features of pytorch-fid', async () => {
      net ??= await Inception.load(formulaState(Object.fromEntries(inceptionShapes()), weights.gain));
      const other = net.forward(images(), { preprocessing: 'pytorch-fid' });
      for (const size of [64, 192, 768, 2048] as const) await expectClose(`pytorch-fid ${size}`, other[size], golden.get(`out.pytorch_fid.${size}`), tolerance);
    }, LONG);

    it('resizes as TensorFlow 1 did', async () => {
      const resized = tf.tidy(() => tf.transpose(tf.gather(tf.gather(tf.add(tf.mul(prepareImages(images(), 'tensorflow'), 128), 128), tf.tensor1d([0, 1, 149, 298], 'int32'), 1), tf.tensor1d(Array.from({ length: 23 }, (_, i) => 13 * i), 'int32'), 2), [0, 3, 1, 2]));
      await expectClose('rows', resized, golden.get('out.resized_rows'), tolerance);
    }, LONG);
  });
}

import { type ByteImage, centreCrop, normalised, resizeImage } from '@tinyfusion/data';
import { describe, expect, it } from 'vitest';
import { type GoldenTensor, expectClose, goldenCases } from './harness.js';

const imageOf = ({ shape: [height, width, channels], values }: GoldenTensor): ByteImage => ({ height: height!, width: width!, channels: channels!, pixels: Uint8Array.from(values) });

for (const golden of goldenCases('preprocess_')) {
  const { sizes, steps } = golden.config as { sizes: number[]; steps: Record<string, { halvings: number; box_size_hw: [number, number]; bicubic_size_hw: [number, number] }> };
  describe(golden.name, () => {
    const original = imageOf(golden.get('in.image'));
    it.each(sizes)('centre crop to %i, to the bit', async (size) => {
      const { halvings, bicubic_size_hw: [height, width] } = steps[size]!;
      let image = original;
      for (let i = 0; i < halvings; i++) image = resizeImage(image, Math.floor(image.width / 2), Math.floor(image.height / 2), 'box');
      if (golden.tensors.has(`out.box.${size}`)) expect(image).toEqual(imageOf(golden.get(`out.box.${size}`)));
      expect(resizeImage(image, width, height, 'bicubic')).toEqual(imageOf(golden.get(`out.bicubic.${size}`)));
      const crop = centreCrop(original, size);
      expect(crop).toEqual(imageOf(golden.get(`out.crop.${size}`)));
      // stored by channel
      const values = normalised(crop);
      const planes = Float32Array.from({ length: values.length }, (_, i) => values[(i % (size * size)) * 3 + Math.floor(i / (size * size))]!);
      await expectClose('normalised', planes, golden.get(`out.normalized.${size}`), { absolute: 1e-6 });
    });
  });
}

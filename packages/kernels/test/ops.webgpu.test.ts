import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { useBackend } from '../src/index.js';
import { cases, draw, evaluate } from './cases.js';

describe('operations on webgpu agree with those on cpu, value and gradient', () => {
  beforeAll(async () => {
    await useBackend({ prefer: 'webgpu' });
    const { device } = tf.backend() as unknown as { device: GPUDevice };
    // tfjs computes zeros where a shader or a buffer is invalid, and says so only here
    device.addEventListener('uncapturederror', (event) => {
      throw new Error(event.error.message);
    });
  });

  for (const one of cases) {
    it(one.name, async () => {
      const values = one.shapes.map(draw);
      await tf.setBackend('cpu');
      const expected = await evaluate(one, values);
      await tf.setBackend('webgpu');
      const got = await evaluate(one, values);
      for (const [i, reference] of expected.entries()) {
        const largest = reference.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
        const worst = reference.reduce((a, b, j) => Math.max(a, Math.abs(b - got[i]![j]!)), 0);
        expect(worst / (largest + 1e-6), i === 0 ? 'value' : `gradient ${i - 1}`).toBeLessThan(2e-5);
      }
    });
  }
});

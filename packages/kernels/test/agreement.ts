import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import { expect } from 'vitest';
import { type Case, draw, evaluate } from './cases.js';

/** Compares a backend's value and gradients with those of the references on cpu. */
export async function expectAgreement(one: Case, backend: string): Promise<void> {
  const values = one.shapes.map(draw);
  await tf.setBackend('cpu');
  const expected = await evaluate(one, values);
  await tf.setBackend(backend);
  const got = await evaluate(one, values);
  for (const [i, reference] of expected.entries()) {
    const largest = reference.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const worst = reference.reduce((a, b, j) => Math.max(a, Math.abs(b - got[i]![j]!)), 0);
    // float32 sums in another order: a few units in the last place of the largest term
    expect(worst / (largest + 1e-6), i === 0 ? 'value' : `gradient ${i - 1}`).toBeLessThan(1e-5);
  }
}

import { createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/** A weight `[rows, inner]` of random float16 values between 1/16 and 2 in size, packed, and what it holds. */
export function halves(rows: number, inner: number, seed: number): { words: tf.Tensor2D; values: Float32Array } {
  const rng = createRng(seed);
  const perRow = Math.ceil(inner / 2);
  const bits = Uint16Array.from(rng.integers(0, 2 ** 16, rows * perRow * 2), (word) => (word & 0x83ff) | ((11 + ((word >> 10) & 3)) << 10) | (word & 0x3ff));
  const value = (h: number): number => (h & 0x8000 ? -1 : 1) * 2 ** (((h >> 10) & 31) - 25) * (1024 + (h & 0x3ff));
  const values = Float32Array.from({ length: rows * inner }, (_, i) => value(bits[Math.floor(i / inner) * perRow * 2 + (i % inner)]!));
  return { words: tf.tensor2d(new Int32Array(bits.buffer), [rows, perRow], 'int32'), values };
}

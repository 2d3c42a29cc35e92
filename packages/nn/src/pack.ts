import { CheckpointError } from '@tinyfusion/core';
import { PACKED_GROUP, type PackedDtype, scaleShape, wordsPerRow } from '@tinyfusion/kernels';
import { encodeFloat32 } from '@tinyfusion/weights';

/** A weight's words, row by row, and for integers their scales. */
export interface PackedValues {
  words: Int32Array;
  scale?: Float32Array;
}

/**
 * Packs a weight `[rows, columns]`. Float16 rounds to nearest; bytes are multiples of a row's largest magnitude over 127,
 * half bytes of the largest magnitude over 7 among 32 columns of a row.
 * @param name what an error calls it
 * @throws CheckpointError where a value is not finite, or beyond float16's range of ±65,504
 */
export function packWeight(values: Float32Array, columns: number, dtype: PackedDtype, name = 'the weight'): PackedValues {
  const rows = values.length / columns;
  const words = new Int32Array(rows * wordsPerRow(columns, dtype));
  const rowBytes = (4 * words.length) / rows;
  const bytes = new Uint8Array(words.buffer);
  const scales = new Float32Array(scaleShape(rows, columns, dtype)?.reduce((a, b) => a * b, 1) ?? 0);
  const [group, most] = dtype === 'I4' ? [PACKED_GROUP, 7] : [columns, 127];
  for (let r = 0; r < rows; r++) {
    const row = values.subarray(r * columns, (r + 1) * columns);
    const largest = magnitudeOf(row);
    if (!(largest < (dtype === 'F16' ? 65_520 : Infinity))) throw new CheckpointError(`${name} has a value of magnitude ${largest} in row ${r}, which ${dtype} cannot hold; load it as F32`);
    if (dtype === 'F16') {
      bytes.set(encodeFloat32(row, 'F16'), r * rowBytes);
      continue;
    }
    for (let start = 0; start < columns; start += group) {
      const own = row.subarray(start, start + group);
      const magnitude = magnitudeOf(own);
      const scale = magnitude === 0 ? 1 : Math.fround(magnitude / most);
      scales[(r * scales.length) / rows + start / group] = scale;
      for (const [i, v] of own.entries()) {
        const value = Math.max(-most, Math.min(most, Math.round(v / scale)));
        const at = start + i;
        if (dtype === 'I8') bytes[r * rowBytes + at] = value;
        else bytes[r * rowBytes + (at >> 1)]! |= (value & 15) << (4 * (at & 1));
      }
    }
  }
  return dtype === 'F16' ? { words } : { words, scale: scales };
}

/** The largest magnitude; NaN where a value is. A loop: `reduce` takes five to six times as long, most of a minute for the largest models. */
function magnitudeOf(values: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i]!);
    if (!(magnitude <= largest)) largest = magnitude;
    if (magnitude !== magnitude) return NaN;
  }
  return largest;
}

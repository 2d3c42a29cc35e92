import { CheckpointError } from '@tinyfusion/core';
import { type PackedDtype, wordsPerRow } from '@tinyfusion/kernels';
import { encodeFloat32 } from '@tinyfusion/weights';

/** A weight's words, row by row, and for bytes the scale of each row. */
export interface PackedValues {
  words: Int32Array;
  scale?: Float32Array;
}

/**
 * Packs a weight `[rows, columns]`. Float16 rounds to nearest; bytes are multiples of a row's largest magnitude over 127.
 * @param name what an error calls it
 * @throws CheckpointError where a value is not finite, or beyond float16's range of ±65,504
 */
export function packWeight(values: Float32Array, columns: number, dtype: PackedDtype, name = 'the weight'): PackedValues {
  const rows = values.length / columns;
  const words = new Int32Array(rows * wordsPerRow(columns, dtype));
  const rowBytes = (4 * words.length) / rows;
  const bytes = new Uint8Array(words.buffer);
  const scale = new Float32Array(rows);
  for (let r = 0; r < rows; r++) {
    const row = values.subarray(r * columns, (r + 1) * columns);
    const largest = row.reduce((most, v) => (Math.abs(v) > most || Number.isNaN(v) ? Math.abs(v) : most), 0);
    if (!(largest < (dtype === 'F16' ? 65_520 : Infinity))) throw new CheckpointError(`${name} has a value of magnitude ${largest} in row ${r}, which ${dtype} cannot hold; load it as F32`);
    if (dtype === 'F16') bytes.set(encodeFloat32(row, 'F16'), r * rowBytes);
    else {
      scale[r] = largest === 0 ? 1 : Math.fround(largest / 127);
      for (let i = 0; i < columns; i++) bytes[r * rowBytes + i] = Math.max(-127, Math.min(127, Math.round(row[i]! / scale[r]!)));
    }
  }
  return dtype === 'F16' ? { words } : { words, scale };
}

import { softmaxGradRows, softmaxRows } from './elementwise';
import { gemm } from './gemm';

// Attention, one head at a time. Each operand has strides (in floats) by batch, head and row, so that packed qkv and
// separate tensors are the same to it. `scratch`: tq·tk floats (twice that for gradients), then gemm's.

export function attention(
  q: usize, k: usize, v: usize, o: usize,
  batch: i32, heads: i32, tq: i32, tk: i32, d: i32,
  qBatch: i32, qHead: i32, qRow: i32,
  kBatch: i32, kHead: i32, kRow: i32,
  oBatch: i32, oHead: i32, oRow: i32,
  scale: f32, scratch: usize,
): void {
  const p = scratch;
  const inner = (p + (<usize>(tq * tk) << 2) + 15) & ~15;
  for (let n: i32 = 0; n < batch; ++n) {
    for (let h: i32 = 0; h < heads; ++h) {
      const qAt = <usize>(n * qBatch + h * qHead) << 2;
      const kAt = <usize>(n * kBatch + h * kHead) << 2;
      const oAt = <usize>(n * oBatch + h * oHead) << 2;
      gemm(q + qAt, qRow, 1, k + kAt, kRow, true, p, tk, tq, tk, d, false, 0, inner);
      softmaxRows(p, tq, tk, scale);
      gemm(p, tk, 1, v + kAt, kRow, false, o + oAt, oRow, tq, d, tk, false, 0, inner);
    }
  }
}

export function attentionGrad(
  dO: usize, q: usize, k: usize, v: usize, dQ: usize, dK: usize, dV: usize,
  batch: i32, heads: i32, tq: i32, tk: i32, d: i32,
  qBatch: i32, qHead: i32, qRow: i32,
  kBatch: i32, kHead: i32, kRow: i32,
  oBatch: i32, oHead: i32, oRow: i32,
  scale: f32, scratch: usize,
): void {
  const p = scratch;
  const dS = p + (<usize>(tq * tk) << 2);
  const inner = (dS + (<usize>(tq * tk) << 2) + 15) & ~15;
  for (let n: i32 = 0; n < batch; ++n) {
    for (let h: i32 = 0; h < heads; ++h) {
      const qAt = <usize>(n * qBatch + h * qHead) << 2;
      const kAt = <usize>(n * kBatch + h * kHead) << 2;
      const oAt = <usize>(n * oBatch + h * oHead) << 2;
      gemm(q + qAt, qRow, 1, k + kAt, kRow, true, p, tk, tq, tk, d, false, 0, inner);
      softmaxRows(p, tq, tk, scale);
      gemm(p, 1, tk, dO + oAt, oRow, false, dV + kAt, kRow, tk, d, tq, false, 0, inner);
      gemm(dO + oAt, oRow, 1, v + kAt, kRow, true, dS, tk, tq, tk, d, false, 0, inner);
      softmaxGradRows(p, dS, tq, tk, scale);
      gemm(dS, tk, 1, k + kAt, kRow, false, dQ + qAt, qRow, tq, d, tk, false, 0, inner);
      gemm(dS, 1, tk, q + qAt, qRow, false, dK + kAt, kRow, tk, d, tq, false, 0, inner);
    }
  }
}

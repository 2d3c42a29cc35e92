import { packSlice } from './pack';
import { tile } from './tile';

// Products of float64 matrices in register tiles of 4×4, of operands packed in panels four wide. Strides and leading
// dimensions are counted in values, not bytes. Nothing here allocates: the caller hands in scratch, aligned to 16.

const KC: i32 = 256;
const MC: i32 = 128;
const NC: i32 = 1024;

/** Bytes of scratch that {@link gemm} takes. */
export function gemmScratch(): i32 {
  return (KC * (MC + NC) + 16) << 3;
}

/** A tile at the edge, of `rows` × `columns`: computed whole in `edge`, then copied. */
function edgeTile(a: usize, b: usize, kc: i32, c: usize, ldc: usize, accumulate: bool, rows: i32, columns: i32, edge: usize): void {
  tile<f64>(a, b, kc, edge, 32, false);
  for (let i: i32 = 0; i < rows; ++i) {
    for (let j: i32 = 0; j < columns; ++j) {
      const at = c + <usize>i * ldc + (<usize>j << 3);
      const value = load<f64>(edge + (<usize>(4 * i + j) << 3));
      store<f64>(at, accumulate ? load<f64>(at) + value : value);
    }
  }
}

/**
 * C = or += alpha·A·B for A `[m, k]`, whose element (i, k) is at a[i·aRow + k·aColumn], B `[k, n]` likewise, and C with
 * rows `ldc` apart. `triangle`: 0 writes all of C, 1 the tiles that touch its upper triangle, −1 its lower.
 */
export function gemm(
  alpha: f64,
  a: usize, aRow: i32, aColumn: i32,
  b: usize, bRow: i32, bColumn: i32,
  c: usize, ldc: i32,
  m: i32, n: i32, k: i32,
  accumulate: bool, triangle: i32, scratch: usize,
): void {
  const edge = scratch;
  const packedA = scratch + 128;
  const packedB = packedA + (<usize>(KC * MC) << 3);
  const row = <usize>ldc << 3;
  for (let j0: i32 = 0; j0 < n; j0 += NC) {
    const nc = min(NC, n - j0);
    for (let k0: i32 = 0; k0 < k; k0 += KC) {
      const kc = min(KC, k - k0);
      const panel = <usize>kc << 5;
      const onTop = accumulate || k0 > 0;
      packSlice(b + (<usize>(k0 * bRow + j0 * bColumn) << 3), bRow, bColumn, kc, nc, 1, packedB);
      for (let i0: i32 = 0; i0 < m; i0 += MC) {
        const mc = min(MC, m - i0);
        if (triangle > 0 && i0 >= j0 + nc) break;
        if (triangle < 0 && i0 + mc <= j0) continue;
        packSlice(a + (<usize>(i0 * aRow + k0 * aColumn) << 3), aColumn, aRow, kc, mc, alpha, packedA);
        for (let j: i32 = 0; j < nc; j += 4) {
          const bPanel = packedB + <usize>(j >> 2) * panel;
          const columns = min(4, nc - j);
          for (let i: i32 = 0; i < mc; i += 4) {
            if (triangle > 0 && i0 + i >= j0 + j + 4) break;
            if (triangle < 0 && i0 + i + 4 <= j0 + j) continue;
            const rows = min(4, mc - i);
            const aPanel = packedA + <usize>(i >> 2) * panel;
            const at = c + <usize>(i0 + i) * row + (<usize>(j0 + j) << 3);
            if (rows == 4 && columns == 4) tile<f64>(aPanel, bPanel, kc, at, row, onTop);
            else edgeTile(aPanel, bPanel, kc, at, row, onTop, rows, columns, edge);
          }
        }
      }
    }
  }
}

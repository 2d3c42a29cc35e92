// Matrix products: 4×8 register tiles, B packed in panels of 8 columns and KC rows. Strides are in floats.
// Nothing here owns memory: the module works on tfjs's heap, scratch is handed in, and there is no static data.

import { expandRow } from './packed';

const KC: i32 = 384;

// @ts-ignore: decorator
@inline
function fma(a: v128, b: v128, c: v128): v128 {
  return f32x4.add(f32x4.mul(a, b), c);
}

/** Packs `kc` rows × 8 columns of op(B) at (k0, j0) to `to`; columns from `columns` on are zeros. */
function pack(b: usize, ldb: i32, tb: bool, k0: i32, kc: i32, j0: i32, columns: i32, to: usize): void {
  if (columns < 8) {
    for (let k: i32 = 0; k < kc; ++k) {
      for (let j: i32 = 0; j < 8; ++j) {
        const at = tb ? (j0 + j) * ldb + k0 + k : (k0 + k) * ldb + j0 + j;
        store<f32>(to + (<usize>(8 * k + j) << 2), j < columns ? load<f32>(b + (<usize>at << 2)) : 0);
      }
    }
    return;
  }
  if (!tb) {
    let p = b + (<usize>(k0 * ldb + j0) << 2);
    const stride = <usize>ldb << 2;
    for (let k: i32 = 0; k < kc; ++k) {
      v128.store(to, v128.load(p));
      v128.store(to, v128.load(p, 16), 16);
      p += stride;
      to += 32;
    }
    return;
  }
  const whole = kc & ~3;
  const stride = <usize>ldb << 2;
  for (let h: i32 = 0; h < 8; h += 4) {
    let p0 = b + (<usize>((j0 + h) * ldb + k0) << 2);
    let p1 = p0 + stride;
    let p2 = p1 + stride;
    let p3 = p2 + stride;
    let d = to + (<usize>h << 2);
    for (let k: i32 = 0; k < whole; k += 4) {
      const r0 = v128.load(p0);
      const r1 = v128.load(p1);
      const r2 = v128.load(p2);
      const r3 = v128.load(p3);
      const t0 = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5);
      const t1 = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
      const t2 = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7);
      const t3 = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
      v128.store(d, v128.shuffle<f32>(t0, t1, 0, 1, 4, 5));
      v128.store(d, v128.shuffle<f32>(t0, t1, 2, 3, 6, 7), 32);
      v128.store(d, v128.shuffle<f32>(t2, t3, 0, 1, 4, 5), 64);
      v128.store(d, v128.shuffle<f32>(t2, t3, 2, 3, 6, 7), 96);
      p0 += 16;
      p1 += 16;
      p2 += 16;
      p3 += 16;
      d += 128;
    }
    for (let k: i32 = whole; k < kc; ++k) {
      store<f32>(d, load<f32>(p0));
      store<f32>(d, load<f32>(p1), 4);
      store<f32>(d, load<f32>(p2), 8);
      store<f32>(d, load<f32>(p3), 12);
      p0 += 4;
      p1 += 4;
      p2 += 4;
      p3 += 4;
      d += 32;
    }
  }
}

/** One 4×8 tile: rows of A start at a0…a3 and advance by `cas` bytes; C's rows are `ldc` bytes apart. */
function tile(a0: usize, a1: usize, a2: usize, a3: usize, cas: usize, panel: usize, kc: i32, c: usize, ldc: usize, accumulate: bool): void {
  let c00 = f32x4.splat(0);
  let c01 = c00;
  let c10 = c00;
  let c11 = c00;
  let c20 = c00;
  let c21 = c00;
  let c30 = c00;
  let c31 = c00;
  const end = panel + (<usize>kc << 5);
  while (panel < end) {
    const b0 = v128.load(panel);
    const b1 = v128.load(panel, 16);
    let s = v128.load32_splat(a0);
    c00 = fma(s, b0, c00);
    c01 = fma(s, b1, c01);
    s = v128.load32_splat(a1);
    c10 = fma(s, b0, c10);
    c11 = fma(s, b1, c11);
    s = v128.load32_splat(a2);
    c20 = fma(s, b0, c20);
    c21 = fma(s, b1, c21);
    s = v128.load32_splat(a3);
    c30 = fma(s, b0, c30);
    c31 = fma(s, b1, c31);
    a0 += cas;
    a1 += cas;
    a2 += cas;
    a3 += cas;
    panel += 32;
  }
  if (accumulate) {
    let q = c;
    c00 = f32x4.add(c00, v128.load(q));
    c01 = f32x4.add(c01, v128.load(q, 16));
    q += ldc;
    c10 = f32x4.add(c10, v128.load(q));
    c11 = f32x4.add(c11, v128.load(q, 16));
    q += ldc;
    c20 = f32x4.add(c20, v128.load(q));
    c21 = f32x4.add(c21, v128.load(q, 16));
    q += ldc;
    c30 = f32x4.add(c30, v128.load(q));
    c31 = f32x4.add(c31, v128.load(q, 16));
  }
  v128.store(c, c00);
  v128.store(c, c01, 16);
  c += ldc;
  v128.store(c, c10);
  v128.store(c, c11, 16);
  c += ldc;
  v128.store(c, c20);
  v128.store(c, c21, 16);
  c += ldc;
  v128.store(c, c30);
  v128.store(c, c31, 16);
}

/** C (+)= A · the packed panel, for `columns` (up to 8) columns of C. `edge`: 128 bytes. */
function timesPanel(a: usize, rowBytes: usize, columnBytes: usize, panel: usize, edge: usize, kc: i32, c: usize, ldcBytes: usize, m: i32, columns: i32, onTop: bool): void {
  for (let i: i32 = 0; i < m; i += 4) {
    const rows = min(4, m - i);
    const a0 = a + <usize>i * rowBytes;
    const a1 = rows > 1 ? a0 + rowBytes : a0;
    const a2 = rows > 2 ? a1 + rowBytes : a0;
    const a3 = rows > 3 ? a2 + rowBytes : a0;
    const at = c + <usize>i * ldcBytes;
    if (rows == 4 && columns == 8) tile(a0, a1, a2, a3, columnBytes, panel, kc, at, ldcBytes, onTop);
    else {
      tile(a0, a1, a2, a3, columnBytes, panel, kc, edge, 32, false);
      for (let r: i32 = 0; r < rows; ++r) {
        for (let q: i32 = 0; q < columns; ++q) {
          const to = at + <usize>r * ldcBytes + (<usize>q << 2);
          const value = load<f32>(edge + (<usize>(8 * r + q) << 2));
          store<f32>(to, onTop ? load<f32>(to) + value : value);
        }
      }
    }
  }
}

/**
 * C (+)= A · op(B) with A's element (i, k) at a[i·ras + k·cas], B's (k, j) at tb ? b[j·ldb + k] : b[k·ldb + j] and C's
 * rows ldc apart. `scratch`: 12,416 bytes, aligned to 16.
 */
export function gemm(a: usize, ras: i32, cas: i32, b: usize, ldb: i32, tb: bool, c: usize, ldc: i32, m: i32, n: i32, k: i32, accumulate: bool, scratch: usize): void {
  const rowBytes = <usize>ras << 2;
  const columnBytes = <usize>cas << 2;
  const ldcBytes = <usize>ldc << 2;
  const edge = scratch + (<usize>(KC * 8) << 2);
  if (k == 0 && !accumulate) {
    for (let i: i32 = 0; i < m; ++i) memory.fill(c + <usize>i * ldcBytes, 0, <usize>n << 2);
    return;
  }
  for (let k0: i32 = 0; k0 < k; k0 += KC) {
    const kc = min(KC, k - k0);
    const onTop = accumulate || k0 > 0;
    for (let j: i32 = 0; j < n; j += 8) {
      const columns = min(8, n - j);
      pack(b, ldb, tb, k0, kc, j, columns, scratch);
      timesPanel(a + <usize>k0 * columnBytes, rowBytes, columnBytes, scratch, edge, kc, c + (<usize>j << 2), ldcBytes, m, columns, onTop);
    }
  }
}

/** C[i] = op(A[i]) · op(B[i]) for a batch of plain matrices; strides 0 repeat an operand. */
export function batchedGemm(batch: i32, a: usize, strideA: i32, ta: bool, b: usize, strideB: i32, tb: bool, c: usize, m: i32, n: i32, k: i32, scratch: usize): void {
  for (let i: i32 = 0; i < batch; ++i) {
    gemm(a, ta ? 1 : k, ta ? m : 1, b, tb ? k : n, tb, c, n, m, n, k, false, scratch);
    a += <usize>strideA << 2;
    b += <usize>strideB << 2;
    c += <usize>(m * n) << 2;
  }
}

/**
 * C (+)= A · Wᵀ for weights W `[n, k]` held as float16 or scaled bytes (see packed.ts), expanded eight rows at a time.
 * A and C are plain. `scratch`: gemm's, then 12,288 bytes.
 */
export function packedGemm(a: usize, words: usize, rowWords: i32, bits: i32, scale: usize, c: usize, m: i32, n: i32, k: i32, accumulate: bool, scratch: usize): void {
  const edge = scratch + (<usize>(KC * 8) << 2);
  const expanded = scratch + 12_416;
  for (let k0: i32 = 0; k0 < k; k0 += KC) {
    const kc = min(KC, k - k0);
    const onTop = accumulate || k0 > 0;
    for (let j: i32 = 0; j < n; j += 8) {
      const columns = min(8, n - j);
      for (let r: i32 = 0; r < columns; ++r) {
        // KC is a multiple of four: a part of a row begins at a word
        const from = words + (<usize>((j + r) * rowWords) << 2) + ((<usize>k0 * <usize>bits) >> 3);
        expandRow(from, bits, bits == 8 ? load<f32>(scale + (<usize>(j + r) << 2)) : 1, expanded + (<usize>(r * KC) << 2), kc);
      }
      pack(expanded, KC, true, 0, kc, 0, columns, scratch);
      timesPanel(a + (<usize>k0 << 2), <usize>k << 2, 4, scratch, edge, kc, c + (<usize>j << 2), <usize>n << 2, m, columns, onTop);
    }
  }
}

/** Every row of `to` (`rows` × `n`) becomes `row`. */
export function fillRows(row: usize, to: usize, rows: i32, n: i32): void {
  for (let i: i32 = 0; i < rows; ++i) memory.copy(to + (<usize>(i * n) << 2), row, <usize>n << 2);
}

/** to[j] = Σᵢ x[i, j]. */
export function sumRows(x: usize, to: usize, rows: i32, n: i32): void {
  memory.fill(to, 0, <usize>n << 2);
  const whole = n & ~3;
  for (let i: i32 = 0; i < rows; ++i) {
    const row = x + (<usize>(i * n) << 2);
    for (let j: i32 = 0; j < whole; j += 4) {
      const at = <usize>j << 2;
      v128.store(to + at, f32x4.add(v128.load(to + at), v128.load(row + at)));
    }
    for (let j: i32 = whole; j < n; ++j) {
      const at = <usize>j << 2;
      store<f32>(to + at, load<f32>(to + at) + load<f32>(row + at));
    }
  }
}

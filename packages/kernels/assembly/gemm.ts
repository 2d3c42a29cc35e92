// Matrix products: 4×8 register tiles over blocks of both operands that are packed into panels. Strides are in floats.
// Nothing here owns memory: the module works on tfjs's heap, scratch is handed in, and there is no static data.

import { fma, sum4 } from './math';
import { packPanels } from './pack';
import { expandRow, expandRowOfFours } from './packed';

/** A block of A is MC × KC (96 KiB, half of a small level-two cache), a block of B KC × NC. */
const KC: i32 = 384;
const MC: i32 = 64;
const NC: i32 = 512;
/** Up to so many rows, products with W `[n, k]` are dot products of rows: packing W would cost more than it saves. */
const FEW_ROWS: i32 = 16;

/**
 * One 4×8 tile of C from a strip of A and a panel of B, on top of what is at `from` (0: nothing), whose rows are `ldf` bytes
 * apart. V8 unrolls this loop itself and reaches the multipliers' limit with it: on a Zen 3 48 GFLOP/s at best in Node 20 and
 * 24. Loops unrolled here (20 to 38), and in Node 20 tiles of 5×8, 6×8, 4×12 and 3×16 (17 to 33), spill their sums.
 */
function tile(a: usize, b: usize, kc: i32, c: usize, ldc: usize, from: usize, ldf: usize): void {
  let c00 = f32x4.splat(0);
  let c01 = c00;
  let c10 = c00;
  let c11 = c00;
  let c20 = c00;
  let c21 = c00;
  let c30 = c00;
  let c31 = c00;
  const end = b + (<usize>kc << 5);
  while (b < end) {
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);
    let s = v128.load32_splat(a);
    c00 = fma(s, b0, c00);
    c01 = fma(s, b1, c01);
    s = v128.load32_splat(a, 4);
    c10 = fma(s, b0, c10);
    c11 = fma(s, b1, c11);
    s = v128.load32_splat(a, 8);
    c20 = fma(s, b0, c20);
    c21 = fma(s, b1, c21);
    s = v128.load32_splat(a, 12);
    c30 = fma(s, b0, c30);
    c31 = fma(s, b1, c31);
    a += 16;
    b += 32;
  }
  if (from != 0) {
    c00 = f32x4.add(c00, v128.load(from));
    c01 = f32x4.add(c01, v128.load(from, 16));
    from += ldf;
    c10 = f32x4.add(c10, v128.load(from));
    c11 = f32x4.add(c11, v128.load(from, 16));
    from += ldf;
    c20 = f32x4.add(c20, v128.load(from));
    c21 = f32x4.add(c21, v128.load(from, 16));
    from += ldf;
    c30 = f32x4.add(c30, v128.load(from));
    c31 = f32x4.add(c31, v128.load(from, 16));
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

/** C of packed strips × packed panels, `mc` × `nc`. `from` (0: zeros) as {@link tile} has it, `edge`: 128 bytes. */
function block(strips: usize, panels: usize, mc: i32, nc: i32, kc: i32, c: usize, ldc: usize, from: usize, ldf: usize, edge: usize): void {
  for (let j: i32 = 0; j < nc; j += 8) {
    const panel = panels + (<usize>(j * kc) << 2);
    const columns = min(8, nc - j);
    for (let i: i32 = 0; i < mc; i += 4) {
      const rows = min(4, mc - i);
      const strip = strips + (<usize>(i * kc) << 2);
      const at = c + <usize>i * ldc + (<usize>j << 2);
      const under = from == 0 ? 0 : from + <usize>i * ldf + (<usize>j << 2);
      if (rows == 4 && columns == 8) {
        tile(strip, panel, kc, at, ldc, under, ldf);
        continue;
      }
      tile(strip, panel, kc, edge, 32, 0, 0);
      for (let r: i32 = 0; r < rows; ++r) {
        for (let q: i32 = 0; q < columns; ++q) {
          const value = load<f32>(edge + (<usize>(8 * r + q) << 2));
          store<f32>(at + <usize>r * ldc + (<usize>q << 2), under == 0 ? value : value + load<f32>(under + <usize>r * ldf + (<usize>q << 2)));
        }
      }
    }
  }
}

/**
 * C = A · op(B) on top of nothing, of itself (`accumulate`) or of `bias` (0: none), one row for all. A's element (i, k) is
 * at a[i·ras + k·cas], B's (k, j) at tb ? b[j·ldb + k] : b[k·ldb + j], C's rows are ldc apart. `scratch`: {@link gemmScratch}
 * bytes, aligned to 16.
 */
export function gemm(a: usize, ras: i32, cas: i32, b: usize, ldb: i32, tb: bool, c: usize, ldc: i32, m: i32, n: i32, k: i32, accumulate: bool, bias: usize, scratch: usize): void {
  const ldcBytes = <usize>ldc << 2;
  if (k == 0) {
    if (!accumulate) {
      for (let i: i32 = 0; i < m; ++i) {
        if (bias != 0) memory.copy(c + <usize>i * ldcBytes, bias, <usize>n << 2);
        else memory.fill(c + <usize>i * ldcBytes, 0, <usize>n << 2);
      }
    }
    return;
  }
  if (tb && cas == 1 && m <= FEW_ROWS && k >= 32) {
    dots(a, ras, b, ldb, c, ldc, m, n, k, accumulate, bias);
    return;
  }
  const strips = scratch;
  const panels = strips + (<usize>(MC * KC) << 2);
  const edge = panels + (<usize>(NC * KC) << 2);
  const step = stepOf(k);
  for (let k0: i32 = 0; k0 < k; k0 += step) {
    const kc = min(step, k - k0);
    for (let j0: i32 = 0; j0 < n; j0 += NC) {
      const nc = min(NC, n - j0);
      packPanels(b + (<usize>(tb ? j0 * ldb + k0 : k0 * ldb + j0) << 2), tb ? 1 : ldb, tb ? ldb : 1, kc, nc, 8, panels);
      for (let i0: i32 = 0; i0 < m; i0 += MC) {
        const mc = min(MC, m - i0);
        packPanels(a + (<usize>(i0 * ras + k0 * cas) << 2), cas, ras, kc, mc, 4, strips);
        const at = c + <usize>i0 * ldcBytes + (<usize>j0 << 2);
        const onTop = accumulate || k0 > 0;
        const onBias = bias != 0 && !onTop;
        block(strips, panels, mc, nc, kc, at, ldcBytes, onTop ? at : onBias ? bias + (<usize>j0 << 2) : 0, onBias ? 0 : ldcBytes, edge);
      }
    }
  }
}

/** Bytes of scratch that {@link gemm} needs, with room for an edge. */
export function gemmScratch(): i32 {
  return 4 * (MC + NC) * KC + 128;
}

/** How `k` is cut: parts of KC at most, of nearly the same size. */
// @ts-ignore: decorator
@inline
function stepOf(k: i32): i32 {
  const parts = (k + KC - 1) / KC;
  return ((k + parts - 1) / parts + 3) & ~3;
}

/** {@link gemm} with rows of A and of W `[n, k]` as they lie, two by four at a time. */
function dots(a: usize, ras: i32, w: usize, ldw: i32, c: usize, ldc: i32, m: i32, n: i32, k: i32, accumulate: bool, bias: usize): void {
  const wBytes = <usize>ldw << 2;
  const whole = <usize>(k & ~3) << 2;
  for (let j: i32 = 0; j < n; j += 4) {
    // beyond the last column the last one is computed again
    const w0 = w + <usize>j * wBytes;
    const w1 = j + 1 < n ? w0 + wBytes : w0;
    const w2 = j + 2 < n ? w1 + wBytes : w1;
    const w3 = j + 3 < n ? w2 + wBytes : w2;
    for (let i: i32 = 0; i < m; i += 2) {
      const a0 = a + (<usize>(i * ras) << 2);
      const a1 = i + 1 < m ? a0 + (<usize>ras << 2) : a0;
      let s00 = f32x4.splat(0);
      let s01 = s00;
      let s02 = s00;
      let s03 = s00;
      let s10 = s00;
      let s11 = s00;
      let s12 = s00;
      let s13 = s00;
      for (let p: usize = 0; p < whole; p += 16) {
        const x0 = v128.load(a0 + p);
        const x1 = v128.load(a1 + p);
        let y = v128.load(w0 + p);
        s00 = fma(x0, y, s00);
        s10 = fma(x1, y, s10);
        y = v128.load(w1 + p);
        s01 = fma(x0, y, s01);
        s11 = fma(x1, y, s11);
        y = v128.load(w2 + p);
        s02 = fma(x0, y, s02);
        s12 = fma(x1, y, s12);
        y = v128.load(w3 + p);
        s03 = fma(x0, y, s03);
        s13 = fma(x1, y, s13);
      }
      const last = <usize>k << 2;
      storeDots(s00, s01, s02, s03, a0, w0, w1, w2, w3, whole, last, c + (<usize>(i * ldc + j) << 2), n - j, accumulate, bias == 0 ? 0 : bias + (<usize>j << 2));
      if (i + 1 < m) storeDots(s10, s11, s12, s13, a1, w0, w1, w2, w3, whole, last, c + (<usize>((i + 1) * ldc + j) << 2), n - j, accumulate, bias == 0 ? 0 : bias + (<usize>j << 2));
    }
  }
}

/** Finishes four dot products from byte `from` to `end`, and stores as many of them as there are columns. */
function storeDots(s0: v128, s1: v128, s2: v128, s3: v128, a: usize, w0: usize, w1: usize, w2: usize, w3: usize, from: usize, end: usize, c: usize, columns: i32, accumulate: bool, bias: usize): void {
  let d0 = sum4(s0);
  let d1 = sum4(s1);
  let d2 = sum4(s2);
  let d3 = sum4(s3);
  for (let p = from; p < end; p += 4) {
    const x = load<f32>(a + p);
    d0 += x * load<f32>(w0 + p);
    d1 += x * load<f32>(w1 + p);
    d2 += x * load<f32>(w2 + p);
    d3 += x * load<f32>(w3 + p);
  }
  const under = accumulate ? c : bias;
  store<f32>(c, under == 0 ? d0 : d0 + load<f32>(under));
  if (columns > 1) store<f32>(c, under == 0 ? d1 : d1 + load<f32>(under, 4), 4);
  if (columns > 2) store<f32>(c, under == 0 ? d2 : d2 + load<f32>(under, 8), 8);
  if (columns > 3) store<f32>(c, under == 0 ? d3 : d3 + load<f32>(under, 12), 12);
}

/** C[i] = op(A[i]) · op(B[i]) for a batch of plain matrices; strides 0 repeat an operand. */
export function batchedGemm(batch: i32, a: usize, strideA: i32, ta: bool, b: usize, strideB: i32, tb: bool, c: usize, m: i32, n: i32, k: i32, scratch: usize): void {
  for (let i: i32 = 0; i < batch; ++i) {
    gemm(a, ta ? 1 : k, ta ? m : 1, b, tb ? k : n, tb, c, n, m, n, k, false, 0, scratch);
    a += <usize>strideA << 2;
    b += <usize>strideB << 2;
    c += <usize>(m * n) << 2;
  }
}

/**
 * C = A · Wᵀ (+ bias) for weights W `[n, k]` held as float16, scaled bytes or half bytes (see packed.ts), expanded eight rows at a time.
 * A and C are plain. `scratch`: gemm's, then 12,288 bytes.
 */
export function packedGemm(a: usize, words: usize, rowWords: i32, bits: i32, scale: usize, c: usize, m: i32, n: i32, k: i32, bias: usize, scratch: usize): void {
  const strips = scratch;
  const panels = strips + (<usize>(MC * KC) << 2);
  const edge = panels + (<usize>(NC * KC) << 2);
  const expanded = edge + 128;
  const ldc = <usize>n << 2;
  for (let k0: i32 = 0; k0 < k; k0 += KC) {
    const kc = min(KC, k - k0);
    for (let j0: i32 = 0; j0 < n; j0 += NC) {
      const nc = min(NC, n - j0);
      for (let j: i32 = 0; j < nc; j += 8) {
        const columns = min(8, nc - j);
        for (let r: i32 = 0; r < columns; ++r) {
          const row = j0 + j + r;
          // KC is a multiple of 32: a part of a row begins at a word, and at a group of half bytes
          const from = words + (<usize>(row * rowWords) << 2) + ((<usize>k0 * <usize>bits) >> 3);
          const to = expanded + (<usize>(r * KC) << 2);
          if (bits == 4) expandRowOfFours(from, scale + (<usize>(row * ((k + 31) >> 5) + (k0 >> 5)) << 2), to, kc);
          else expandRow(from, bits, bits == 8 ? load<f32>(scale + (<usize>row << 2)) : 1, to, kc);
        }
        packPanels(expanded, 1, KC, kc, columns, 8, panels + (<usize>(j * kc) << 2));
      }
      for (let i0: i32 = 0; i0 < m; i0 += MC) {
        const mc = min(MC, m - i0);
        packPanels(a + (<usize>(i0 * k + k0) << 2), 1, k, kc, mc, 4, strips);
        const at = c + <usize>i0 * ldc + (<usize>j0 << 2);
        const onBias = bias != 0 && k0 == 0;
        block(strips, panels, mc, nc, kc, at, ldc, k0 > 0 ? at : onBias ? bias + (<usize>j0 << 2) : 0, onBias ? 0 : ldc, edge);
      }
    }
  }
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

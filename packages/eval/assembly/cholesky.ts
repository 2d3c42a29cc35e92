import { gemm } from './gemm';
import { dot } from './vectors';

const BLOCK: i32 = 64;

/**
 * Cholesky's factorisation of a symmetric `[n, n]` matrix with the largest remaining variance as the pivot, block by
 * block: columns of a block are computed in turn, what remains is updated by a product. Only the lower triangle is read
 * and written; L takes its place, rows in the order of `order` (i32, filled with what row each was). `variances`: n
 * values of room. Ends where no variance is above `least`, and returns the rank.
 */
export function pivotedCholesky(a: usize, ld: i32, n: i32, least: f64, order: usize, variances: usize, scratch: usize): i32 {
  const row = <usize>ld << 3;
  for (let i: i32 = 0; i < n; ++i) {
    store<i32>(order + (<usize>i << 2), i);
    store<f64>(variances + (<usize>i << 3), load<f64>(a + <usize>i * (row + 8)));
  }
  for (let from: i32 = 0; from < n; from += BLOCK) {
    const end = min(from + BLOCK, n);
    let j = from;
    for (; j < end; ++j) {
      const pivot = largest(variances, j, n);
      const variance = load<f64>(variances + (<usize>pivot << 3));
      if (!(variance > least)) break;
      exchange(a, row, n, j, pivot, order, variances);
      const own = a + <usize>j * row + (<usize>from << 3);
      const root = Math.sqrt(variance);
      store<f64>(own + (<usize>(j - from) << 3), root);
      let at = a + <usize>(j + 1) * row + (<usize>from << 3);
      for (let i: i32 = j + 1; i < n; ++i) {
        const to = at + (<usize>(j - from) << 3);
        const value = (load<f64>(to) - dot(at, own, j - from)) / root;
        store<f64>(to, value);
        const left = variances + (<usize>i << 3);
        store<f64>(left, load<f64>(left) - value * value);
        at += row;
      }
    }
    const rest = a + <usize>j * row + (<usize>from << 3);
    gemm(-1, rest, ld, 1, rest, 1, ld, rest + (<usize>(j - from) << 3), ld, n - j, n - j, j - from, true, -1, scratch);
    if (j < end) return j;
  }
  return n;
}

function largest(variances: usize, from: i32, n: i32): i32 {
  let at = from;
  let most = load<f64>(variances + (<usize>from << 3));
  for (let i: i32 = from + 1; i < n; ++i) {
    const value = load<f64>(variances + (<usize>i << 3));
    if (value > most) {
      most = value;
      at = i;
    }
  }
  return at;
}

/** Exchanges rows and columns j < p of the lower triangle, and of L left of column j. */
function exchange(a: usize, row: usize, n: i32, j: i32, p: i32, order: usize, variances: usize): void {
  if (j == p) return;
  const rowJ = a + <usize>j * row;
  const rowP = a + <usize>p * row;
  for (let k: i32 = 0; k < j; ++k) swap(rowJ + (<usize>k << 3), rowP + (<usize>k << 3));
  for (let k: i32 = j + 1; k < p; ++k) swap(a + <usize>k * row + (<usize>j << 3), rowP + (<usize>k << 3));
  for (let k: i32 = p + 1; k < n; ++k) swap(a + <usize>k * row + (<usize>j << 3), a + <usize>k * row + (<usize>p << 3));
  swap(rowJ + (<usize>j << 3), rowP + (<usize>p << 3));
  swap(variances + (<usize>j << 3), variances + (<usize>p << 3));
  const was = load<i32>(order + (<usize>j << 2));
  store<i32>(order + (<usize>j << 2), load<i32>(order + (<usize>p << 2)));
  store<i32>(order + (<usize>p << 2), was);
}

function swap(x: usize, y: usize): void {
  const value = load<f64>(x);
  store<f64>(x, load<f64>(y));
  store<f64>(y, value);
}

/** Largest absolute value in the lower triangle from row and column `from` on: what the factorisation left over. */
export function largestLeft(a: usize, ld: i32, n: i32, from: i32): f64 {
  let most: f64 = 0;
  for (let i: i32 = from; i < n; ++i) {
    let p = a + (<usize>(i * ld + from) << 3);
    for (let j: i32 = from; j <= i; ++j) {
      most = max(most, abs(load<f64>(p)));
      p += 8;
    }
  }
  return most;
}

/**
 * L₁ᵀL₂ `[rank1, rank2]` of two factors `[n, rank]` whose rows lie in orders of their own. L₁ is triangular: a block of
 * its columns begins at its diagonal. What lies above L₁'s diagonal is overwritten by zeros. `rows`: room for `[n, rank2]`
 * with rows `ld2` apart; `places`: n i32.
 */
export function factorProduct(
  l1: usize, ld1: i32, rank1: i32, order1: usize,
  l2: usize, ld2: i32, rank2: i32, order2: usize,
  n: i32, rows: usize, places: usize, out: usize, ldOut: i32, scratch: usize,
): void {
  for (let i: i32 = 0; i < n; ++i) store<i32>(places + (<usize>load<i32>(order2 + (<usize>i << 2)) << 2), i);
  for (let i: i32 = 0; i < n; ++i) {
    // row i of L₂ in the order of L₁, without what lies above its diagonal
    const place = load<i32>(places + (<usize>load<i32>(order1 + (<usize>i << 2)) << 2));
    const filled = min(place + 1, rank2);
    const to = rows + (<usize>(i * ld2) << 3);
    memory.copy(to, l2 + (<usize>(place * ld2) << 3), <usize>filled << 3);
    memory.fill(to + (<usize>filled << 3), 0, <usize>(rank2 - filled) << 3);
    if (i + 1 < rank1) memory.fill(l1 + (<usize>(i * ld1 + i + 1) << 3), 0, <usize>(rank1 - i - 1) << 3);
  }
  for (let i: i32 = 0; i < rank1; i += BLOCK) {
    const columns = min(BLOCK, rank1 - i);
    gemm(1, l1 + (<usize>(i * ld1 + i) << 3), 1, ld1, rows + (<usize>(i * ld2) << 3), ld2, 1, out + (<usize>(i * ldOut) << 3), ldOut, columns, rank2, n - i, false, 0, scratch);
  }
}

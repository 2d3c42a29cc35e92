import { gemm } from './gemm';
import { axpy, reflector } from './vectors';

/**
 * Reduces a matrix `[m, n]`, m ≥ n, to an upper band of `band` diagonals above the main one with the same singular values:
 * in turn a block of columns by a QR factorisation from the left, and the same block of rows by one from the right. Both
 * reach the rest as a product (I − V·T·Vᵀ of Schreiber & Van Loan 1989). Afterwards the band alone has meaning.
 *
 * `v`, `y`: m × band values of room each; `w`: m × band; `t`: 2·band² + 2·band.
 */
export function reduceToBand(a: usize, m: i32, n: i32, ld: i32, band: i32, v: usize, y: usize, w: usize, t: usize, scratch: usize): void {
  for (let k: i32 = 0; k < n; k += band) {
    const block = min(band, n - k);
    const rows = m - k;
    const corner = a + (<usize>(k * ld + k) << 3);
    // columns: V of the block, and Y = V·Tᵀ
    for (let i: i32 = 0; i < rows; ++i) memory.copy(v + (<usize>(i * block) << 3), corner + (<usize>(i * ld) << 3), <usize>block << 3);
    factorPanel(v, rows, block, t);
    for (let i: i32 = 0; i < block; ++i) memory.copy(corner + (<usize>(i * ld + i) << 3), v + (<usize>(i * block + i) << 3), <usize>(block - i) << 3);
    const right = n - k - block;
    if (right == 0) return;
    joinReflections(v, rows, block, t, y, scratch);
    const rest = corner + (<usize>block << 3);
    // (I − V·Tᵀ·Vᵀ)·rest
    gemm(1, v, 1, block, rest, ld, 1, w, right, block, right, rows, false, 0, scratch);
    gemm(-1, y, block, 1, w, right, 1, rest, ld, rows, right, block, true, 0, scratch);
    // rows, as the columns of their transpose
    for (let j: i32 = 0; j < right; ++j) {
      for (let i: i32 = 0; i < block; ++i) store<f64>(v + (<usize>(j * block + i) << 3), load<f64>(rest + (<usize>(i * ld + j) << 3)));
    }
    factorPanel(v, right, block, t);
    for (let i: i32 = 0; i < block; ++i) {
      for (let j: i32 = 0; j <= min(i, right - 1); ++j) store<f64>(rest + (<usize>(i * ld + j) << 3), load<f64>(v + (<usize>(j * block + i) << 3)));
    }
    joinReflections(v, right, block, t, y, scratch);
    const below = rest + (<usize>(block * ld) << 3);
    // below·(I − V·T·Vᵀ)
    gemm(1, below, ld, 1, v, block, 1, w, block, rows - block, block, right, false, 0, scratch);
    gemm(-1, w, block, 1, y, 1, block, below, ld, rows - block, right, block, true, 0, scratch);
  }
}

/** QR of a panel `[rows, columns]` in place: R above, the reflections' v below the diagonal. Their τ lie at the end of `t`. */
function factorPanel(p: usize, rows: i32, columns: i32, t: usize): void {
  const sums = t + (<usize>(2 * columns * columns) << 3);
  const taus = sums + (<usize>columns << 3);
  const row = <usize>columns << 3;
  for (let j: i32 = 0; j < columns; ++j) {
    const right = columns - j - 1;
    let tau: f64 = 0;
    if (j < rows) {
      const own = p + <usize>j * (row + 8);
      tau = reflector(own, rows - j, row, sums);
      const beta = load<f64>(sums);
      if (tau != 0 && right > 0) {
        memory.fill(sums, 0, <usize>right << 3);
        for (let i: i32 = j; i < rows; ++i) {
          const at = own + <usize>(i - j) * row;
          axpy(load<f64>(at), at + 8, sums, right);
        }
        for (let i: i32 = j; i < rows; ++i) {
          const at = own + <usize>(i - j) * row;
          axpy(-tau * load<f64>(at), sums, at + 8, right);
        }
      }
      store<f64>(own, beta);
    }
    store<f64>(taus + (<usize>j << 3), tau);
  }
}

/** From a factored panel: V with its ones and zeros in place, and Y = V·Tᵀ for which the reflections' product is I − V·Yᵀ. */
function joinReflections(v: usize, rows: i32, columns: i32, t: usize, y: usize, scratch: usize): void {
  const gram = t + (<usize>(columns * columns) << 3);
  const taus = gram + (<usize>(columns * columns + columns) << 3);
  const row = <usize>columns << 3;
  for (let i: i32 = 0; i < min(rows, columns); ++i) {
    const diagonal = v + <usize>i * (row + 8);
    store<f64>(diagonal, 1);
    memory.fill(diagonal + 8, 0, <usize>(columns - i - 1) << 3);
  }
  gemm(1, v, 1, columns, v, columns, 1, gram, columns, columns, columns, rows, false, 0, scratch);
  // column j of T: τ on its diagonal, −τ·T·(Vᵀv) above
  memory.fill(t, 0, <usize>columns * row);
  for (let j: i32 = 0; j < columns; ++j) {
    const tau = load<f64>(taus + (<usize>j << 3));
    store<f64>(t + <usize>j * (row + 8), tau);
    for (let i: i32 = 0; i < j; ++i) {
      let sum: f64 = 0;
      for (let k: i32 = i; k < j; ++k) sum += load<f64>(t + (<usize>(i * columns + k) << 3)) * load<f64>(gram + (<usize>(k * columns + j) << 3));
      store<f64>(t + (<usize>(i * columns + j) << 3), -tau * sum);
    }
  }
  gemm(1, v, columns, 1, t, 1, columns, y, columns, rows, columns, columns, false, 0, scratch);
}

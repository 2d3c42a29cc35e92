import { axpy, dot, reflector } from './vectors';

/**
 * Reduces an upper band to two diagonals with the same singular values (Lang 1996, for singular values): reflections
 * clear a row's band and then, block after block down the diagonal, the first row and column of what that filled in.
 *
 * Element (r, c) of the `[n, n]` matrix lies at s + 8·(r·ld + c), where each row has room for columns r − band to
 * r + 2·band − 1; with ld = 3·band rows do not overlap, and the whole takes n·(3·band + 1) values from 8·band bytes before s.
 * `v`: 3·band + 1 values of room.
 */
export function bandToBidiagonal(s: usize, n: i32, band: i32, ld: i32, diagonal: usize, above: usize, v: usize): void {
  const row = <usize>ld << 3;
  const sums = v + (<usize>band << 3);
  const beta = sums + (<usize>(2 * band) << 3);
  for (let i: i32 = 0; i + 2 < n; ++i) {
    let r = i;
    for (let c = i + 1; c + 1 < n; c += band) {
      const end = min(c + band, n);
      const length = end - c;
      clearRow(s + <usize>r * row + (<usize>c << 3), length, end - r - 1, row, v, beta);
      clearColumn(s + <usize>c * (row + 8), length, min(end + band, n) - c - 1, row, v, sums, beta);
      r = c;
    }
  }
  for (let i: i32 = 0; i < n; ++i) {
    const at = s + <usize>i * (row + 8);
    store<f64>(diagonal + (<usize>i << 3), load<f64>(at));
    if (i + 1 < n) store<f64>(above + (<usize>i << 3), load<f64>(at, 8));
  }
}

/** Reflects columns so that of `length` values at `x` only the first is left; `rows` below follow. */
function clearRow(x: usize, length: i32, rows: i32, row: usize, v: usize, beta: usize): void {
  memory.copy(v, x, <usize>length << 3);
  const tau = reflector(v, length, 8, beta);
  store<f64>(x, load<f64>(beta));
  memory.fill(x + 8, 0, <usize>(length - 1) << 3);
  if (tau == 0) return;
  for (let i: i32 = 0; i < rows; ++i) {
    x += row;
    axpy(-tau * dot(v, x, length), v, x, length);
  }
}

/** Reflects rows so that of `length` values from `x` down only the first is left; `columns` to the right follow. */
function clearColumn(x: usize, length: i32, columns: i32, row: usize, v: usize, sums: usize, beta: usize): void {
  for (let i: i32 = 0; i < length; ++i) {
    const at = x + <usize>i * row;
    store<f64>(v + (<usize>i << 3), load<f64>(at));
    if (i > 0) store<f64>(at, 0);
  }
  const tau = reflector(v, length, 8, beta);
  store<f64>(x, load<f64>(beta));
  if (tau == 0) return;
  memory.fill(sums, 0, <usize>columns << 3);
  for (let i: i32 = 0; i < length; ++i) axpy(load<f64>(v + (<usize>i << 3)), x + <usize>i * row + 8, sums, columns);
  for (let i: i32 = 0; i < length; ++i) axpy(-tau * load<f64>(v + (<usize>i << 3)), sums, x + <usize>i * row + 8, columns);
}

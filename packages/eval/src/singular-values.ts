// ml-matrix's SVD walks columns of row-major arrays: at the size of Inception's features, 2048 × 2048, it takes minutes.
// Here only the values are wanted: Householder's bidiagonalisation row by row, then the eigenvalues of a tridiagonal matrix.

/**
 * Singular values of a matrix in float64 (Golub & Kahan 1965), with errors of about 1e-16 of the largest.
 *
 * @param matrix `[rows, columns]`, row by row; overwritten
 * @returns min(rows, columns) values, in no order
 */
export function singularValues(matrix: Float64Array, rows: number, columns: number): Float64Array {
  if (rows < columns) return singularValues(transposed(matrix, rows, columns), columns, rows);
  const { diagonal, above } = bidiagonalise(matrix, rows, columns);
  return valuesOfBidiagonal(diagonal, above);
}

/** Reduces a matrix of at least as many rows as columns to two diagonals with the same singular values. */
function bidiagonalise(a: Float64Array, m: number, n: number): { diagonal: Float64Array; above: Float64Array } {
  const diagonal = new Float64Array(n);
  const above = new Float64Array(Math.max(0, n - 1));
  const left = new Float64Array(m);
  const right = new Float64Array(n);
  const sums = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    // from the left: zeros below the diagonal of column k
    for (let i = k; i < m; i++) left[i] = a[i * n + k]!;
    const alpha = reflector(left, k, m);
    diagonal[k] = alpha.value;
    sums.fill(0, k + 1);
    if (alpha.tau !== 0) {
      let i = k;
      for (; i + 2 <= m; i += 2) addTwo(sums, a, i * n, left[i]!, left[i + 1]!, k + 1, n);
      for (; i < m; i++) addTo(sums, a, i * n, left[i]!, k + 1, n);
      addFrom(a, k * n, sums, -alpha.tau * left[k]!, k + 1, n);
    }
    // from the right: zeros after the second entry of row k
    let beta = { value: 0, tau: 0 };
    if (k < n - 1) {
      for (let j = k + 1; j < n; j++) right[j] = a[k * n + j]!;
      beta = reflector(right, k + 1, n);
      above[k] = beta.value;
    }
    // both changes of a row while it is in the cache
    for (let i = k + 1; i < m; i++) {
      const row = i * n;
      const factor = -alpha.tau * left[i]!;
      let product = 0;
      for (let j = k + 1; j < n; j++) {
        const value = a[row + j]! + factor * sums[j]!;
        a[row + j] = value;
        product += value * right[j]!;
      }
      if (beta.tau !== 0) addFrom(a, row, right, -beta.tau * product, k + 1, n);
    }
  }
  return { diagonal, above };
}

/** Householder's vector v in place, for which (I − τvvᵀ)x is `value` in its first entry and zero in the others. */
function reflector(x: Float64Array, from: number, to: number): { value: number; tau: number } {
  let largest = 0;
  for (let i = from; i < to; i++) largest = Math.max(largest, Math.abs(x[i]!));
  if (largest === 0) return { value: 0, tau: 0 };
  let sum = 0;
  for (let i = from; i < to; i++) sum += (x[i]! / largest) ** 2;
  const norm = largest * Math.sqrt(sum);
  const first = x[from]!;
  const value = first > 0 ? -norm : norm;
  if (first === value) return { value, tau: 0 };
  x[from] = first - value;
  // vᵀv = 2·norm·(norm + |first|)
  return { value, tau: 1 / (norm * (norm + Math.abs(first))) };
}

/** sums += x · row + y · the row after it */
function addTwo(sums: Float64Array, a: Float64Array, row: number, x: number, y: number, from: number, to: number): void {
  const next = row + to;
  for (let j = from; j < to; j++) sums[j]! += x * a[row + j]! + y * a[next + j]!;
}

/** sums += factor · row */
function addTo(sums: Float64Array, a: Float64Array, row: number, factor: number, from: number, to: number): void {
  for (let j = from; j < to; j++) sums[j]! += factor * a[row + j]!;
}

/** row += factor · values */
function addFrom(a: Float64Array, row: number, values: Float64Array, factor: number, from: number, to: number): void {
  for (let j = from; j < to; j++) a[row + j]! += factor * values[j]!;
}

/**
 * Singular values of a bidiagonal matrix: the eigenvalues that are not negative of the symmetric tridiagonal matrix with
 * zeros on its diagonal and the two diagonals in turn beside it, which come in pairs ±σ.
 */
function valuesOfBidiagonal(diagonal: Float64Array, above: Float64Array): Float64Array {
  const n = diagonal.length;
  const beside = new Float64Array(2 * n);
  for (let i = 0; i < n; i++) {
    beside[2 * i] = diagonal[i]!;
    beside[2 * i + 1] = above[i] ?? 0;
  }
  const values = tridiagonalEigenvalues(new Float64Array(2 * n), beside);
  return values.toSorted((x, y) => y - x).subarray(0, n).map((v) => Math.max(0, v));
}

/** Eigenvalues of a symmetric tridiagonal matrix by the implicit QL method (Martin & Wilkinson 1968). Arrays are overwritten. */
function tridiagonalEigenvalues(d: Float64Array, e: Float64Array): Float64Array {
  const n = d.length;
  for (let l = 0; l < n; l++) {
    for (let iteration = 0; ; iteration++) {
      let m = l;
      for (; m < n - 1; m++) {
        const scale = Math.abs(d[m]!) + Math.abs(d[m + 1]!);
        // the diagonal starts as zeros: neighbours beside it take its place
        const size = Math.max(scale, Math.abs(e[m - 1] ?? 0), Math.abs(e[m + 1] ?? 0));
        if (Math.abs(e[m]!) <= Number.EPSILON * size || e[m] === 0) break;
      }
      if (m === l) break;
      if (iteration === 100) throw new Error('internal error, please report: the eigenvalues of a covariance did not converge');
      let g = (d[l + 1]! - d[l]!) / (2 * e[l]!);
      let r = Math.hypot(g, 1);
      g = d[m]! - d[l]! + e[l]! / (g + (g >= 0 ? r : -r));
      let [s, c, p] = [1, 1, 0];
      let i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i]!;
        const b = c * e[i]!;
        r = Math.hypot(f, g);
        e[i + 1] = r;
        if (r === 0) {
          d[i + 1]! -= p;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1]! - p;
        r = (d[i]! - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
      }
      if (r === 0 && i >= l) continue;
      d[l]! -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
  return d;
}

function transposed(a: Float64Array, rows: number, columns: number): Float64Array {
  const out = new Float64Array(a.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = a[i * columns + j]!;
  return out;
}

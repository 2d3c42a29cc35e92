// Singular values of a bidiagonal matrix by the implicit QR iteration of Golub & Kahan (1965), without a shift where a
// value is near zero (Demmel & Kahan 1990).

const epsilon: f64 = 2.220446049250313e-16;

/**
 * @param d diagonal, n values; overwritten by the singular values, in no order
 * @param e above it, n − 1 values; overwritten
 * @returns whether it converged
 */
export function bidiagonalValues(d: usize, e: usize, n: i32): bool {
  let norm: f64 = 0;
  for (let i: i32 = 0; i < n; ++i) norm = max(norm, max(abs(at(d, i)), i + 1 < n ? abs(at(e, i)) : 0));
  // rotations round by about this much of the largest value: less never becomes of what is beside equal values
  const negligible = 4 * epsilon * norm;
  const zero = 0.5 * epsilon * norm;
  let low: i32 = -1;
  let sweeps: i32 = 0;
  for (let high = n - 1; high > 0; ) {
    if (abs(at(e, high - 1)) <= negligible) {
      --high;
      continue;
    }
    let from = high - 1;
    while (from > 0 && abs(at(e, from - 1)) > negligible) --from;
    // sweeps go from large values to small ones: a new block that grows downwards is turned round
    if (from != low) {
      low = from;
      if (abs(at(d, low)) < abs(at(d, high))) reverse(d, e, low, high);
    }
    if (++sweeps > 60 * n) return false;
    let singular = false;
    for (let i = low; i <= high; ++i) {
      if (abs(at(d, i)) <= zero) {
        put(d, i, 0);
        singular = true;
      }
    }
    if (singular) {
      sweepUnshifted(d, e, low, high);
      continue;
    }
    const shift = smallerValue(at(d, high - 1), at(e, high - 1), at(d, high));
    const ratio = shift / at(d, low);
    if (ratio * ratio < epsilon) sweepUnshifted(d, e, low, high);
    else sweepShifted(d, e, low, high, shift);
  }
  for (let i: i32 = 0; i < n; ++i) put(d, i, abs(at(d, i)));
  return true;
}

function at(values: usize, i: i32): f64 {
  return load<f64>(values + (<usize>i << 3));
}

function put(values: usize, i: i32, value: f64): void {
  store<f64>(values + (<usize>i << 3), value);
}

/** The transpose of a block with rows and columns in reverse order is bidiagonal again, with the same singular values. */
function reverse(d: usize, e: usize, low: i32, high: i32): void {
  for (let i = low, j = high; i < j; ++i, --j) {
    const value = at(d, i);
    put(d, i, at(d, j));
    put(d, j, value);
  }
  for (let i = low, j = high - 1; i < j; ++i, --j) {
    const value = at(e, i);
    put(e, i, at(e, j));
    put(e, j, value);
  }
}

/** The smaller singular value of [[f, g], [0, h]]. */
function smallerValue(f: f64, g: f64, h: f64): f64 {
  // σ₁ ± σ₂ are the norms of (f ± h, g); their difference cancels, σ₁σ₂ = |f·h| does not
  const sum = Math.sqrt((abs(f) + abs(h)) * (abs(f) + abs(h)) + g * g);
  const difference = Math.sqrt((abs(f) - abs(h)) * (abs(f) - abs(h)) + g * g);
  return abs(f * h) / (0.5 * (sum + difference));
}

/** One sweep of rotations that pushes the bulge of a shifted first column out at the end. */
function sweepShifted(d: usize, e: usize, low: i32, high: i32, shift: f64): void {
  const first = at(d, low);
  // (first² − shift²) / first, without squares
  let f = (abs(first) - shift) * ((first > 0 ? 1 : -1) + shift / first);
  let g = at(e, low);
  for (let i = low; i < high; ++i) {
    let r = Math.sqrt(f * f + g * g);
    let c: f64 = 1;
    let s: f64 = 0;
    if (r > 0) {
      c = f / r;
      s = g / r;
    }
    if (i > low) put(e, i - 1, r);
    const di = at(d, i);
    const ei = at(e, i);
    f = c * di + s * ei;
    const left = c * ei - s * di;
    const next = at(d, i + 1);
    g = s * next;
    const kept = c * next;
    r = Math.sqrt(f * f + g * g);
    c = 1;
    s = 0;
    if (r > 0) {
      c = f / r;
      s = g / r;
    }
    put(d, i, r);
    f = c * left + s * kept;
    put(d, i + 1, c * kept - s * left);
    if (i + 1 < high) {
      const after = at(e, i + 1);
      g = s * after;
      put(e, i + 1, c * after);
    }
  }
  put(e, high - 1, f);
}

/** A sweep with shift zero, in which nothing is subtracted; it ends with a zero where the diagonal has one. */
function sweepUnshifted(d: usize, e: usize, low: i32, high: i32): void {
  let c: f64 = 1;
  let lastC: f64 = 1;
  let lastS: f64 = 0;
  for (let i = low; i < high; ++i) {
    let f = at(d, i) * c;
    let g = at(e, i);
    let r = Math.sqrt(f * f + g * g);
    let s: f64 = 0;
    c = 1;
    if (r > 0) {
      c = f / r;
      s = g / r;
    }
    if (i > low) put(e, i - 1, lastS * r);
    f = lastC * r;
    g = at(d, i + 1) * s;
    r = Math.sqrt(f * f + g * g);
    lastC = 1;
    lastS = 0;
    if (r > 0) {
      lastC = f / r;
      lastS = g / r;
    }
    put(d, i, r);
  }
  const h = at(d, high) * c;
  put(e, high - 1, h * lastS);
  put(d, high, h * lastC);
}

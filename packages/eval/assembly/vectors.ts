// Operations on runs of float64, two lanes at a time.

/** Σ x[i]·y[i] */
export function dot(x: usize, y: usize, n: i32): f64 {
  let s0 = f64x2.splat(0);
  let s1 = s0;
  const end4 = x + (<usize>(n & ~3) << 3);
  while (x < end4) {
    s0 = f64x2.add(s0, f64x2.mul(v128.load(x), v128.load(y)));
    s1 = f64x2.add(s1, f64x2.mul(v128.load(x, 16), v128.load(y, 16)));
    x += 32;
    y += 32;
  }
  s0 = f64x2.add(s0, s1);
  let sum = f64x2.extract_lane(s0, 0) + f64x2.extract_lane(s0, 1);
  for (let i: i32 = n & 3; i > 0; --i) {
    sum += load<f64>(x) * load<f64>(y);
    x += 8;
    y += 8;
  }
  return sum;
}

/** y += alpha·x */
export function axpy(alpha: f64, x: usize, y: usize, n: i32): void {
  const s = f64x2.splat(alpha);
  const end4 = x + (<usize>(n & ~3) << 3);
  while (x < end4) {
    v128.store(y, f64x2.add(v128.load(y), f64x2.mul(s, v128.load(x))));
    v128.store(y, f64x2.add(v128.load(y, 16), f64x2.mul(s, v128.load(x, 16))), 16);
    x += 32;
    y += 32;
  }
  for (let i: i32 = n & 3; i > 0; --i) {
    store<f64>(y, load<f64>(y) + alpha * load<f64>(x));
    x += 8;
    y += 8;
  }
}

/**
 * Householder's reflection H = I − τvvᵀ with v[0] = 1 that takes x, `n` values `stride` bytes apart, to (β, 0, …).
 * Writes v over x and β to `beta`; returns τ, which is 0 where there is nothing to do. Entries are at most about 1.
 */
export function reflector(x: usize, n: i32, stride: usize, beta: usize): f64 {
  let sum: f64 = 0;
  let p = x + stride;
  for (let i: i32 = 1; i < n; ++i) {
    const value = load<f64>(p);
    sum += value * value;
    p += stride;
  }
  const first = load<f64>(x);
  store<f64>(beta, first);
  store<f64>(x, 1);
  if (sum < 1e-290) {
    // their squares have lost bits: rounding to zero changes less than a reflection that is none
    for (p = x + stride; n > 1; --n, p += stride) store<f64>(p, 0);
    return 0;
  }
  const norm = Math.sqrt(first * first + sum);
  const value = first > 0 ? -norm : norm;
  const scale = 1 / (first - value);
  p = x + stride;
  for (let i: i32 = 1; i < n; ++i) {
    store<f64>(p, load<f64>(p) * scale);
    p += stride;
  }
  store<f64>(beta, value);
  return (value - first) / value;
}

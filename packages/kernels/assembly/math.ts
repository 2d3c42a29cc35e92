// Vector functions. Constants are Cephes' single-precision ones.

/** a·b + c, rounded once where the engine has relaxed SIMD and the processor fuses it. */
// @ts-ignore: decorator
@inline
export function fma(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c);
}

/** 1.5 · 2²³: what is added to it is rounded to an integer, which then stands in its lowest bits. */
const ROUND: f32 = 12582912;

/** exp, relative error about 1e-7; arguments are clamped to [-87.3, 88]. */
// @ts-ignore: decorator
@inline
export function exp4(argument: v128): v128 {
  const x = f32x4.pmin(f32x4.pmax(argument, f32x4.splat(-87.3)), f32x4.splat(88));
  const rounded = fma(x, f32x4.splat(1.44269504088896341), f32x4.splat(ROUND));
  const n = f32x4.sub(rounded, f32x4.splat(ROUND));
  const r = fma(n, f32x4.splat(2.12194440e-4), fma(n, f32x4.splat(-0.693359375), x));
  let p = f32x4.splat(1.9875691500e-4);
  p = fma(p, r, f32x4.splat(1.3981999507e-3));
  p = fma(p, r, f32x4.splat(8.3334519073e-3));
  p = fma(p, r, f32x4.splat(4.1665795894e-2));
  p = fma(p, r, f32x4.splat(1.6666665459e-1));
  p = fma(p, r, f32x4.splat(5.0000001201e-1));
  const y = f32x4.add(fma(p, f32x4.mul(r, r), r), f32x4.splat(1));
  return f32x4.mul(y, i32x4.shl(i32x4.add(rounded, i32x4.splat(127)), 23));
}

/** 1 / (1 + exp(−x)). */
// @ts-ignore: decorator
@inline
export function sigmoid4(x: v128): v128 {
  return f32x4.div(f32x4.splat(1), f32x4.add(f32x4.splat(1), exp4(f32x4.neg(x))));
}

/** Sum of the four lanes. */
// @ts-ignore: decorator
@inline
export function sum4(x: v128): f32 {
  return f32x4.extract_lane(x, 0) + f32x4.extract_lane(x, 1) + (f32x4.extract_lane(x, 2) + f32x4.extract_lane(x, 3));
}

/** The largest of the four lanes. */
// @ts-ignore: decorator
@inline
export function max4(x: v128): f32 {
  return max(max(f32x4.extract_lane(x, 0), f32x4.extract_lane(x, 1)), max(f32x4.extract_lane(x, 2), f32x4.extract_lane(x, 3)));
}

/** Four floats at `p`, or the first `count` of them and zeros. */
// @ts-ignore: decorator
@inline
export function loadUpTo4(p: usize, count: i32): v128 {
  if (count >= 4) return v128.load(p);
  let x = v128.load32_zero(p);
  if (count > 1) x = f32x4.replace_lane(x, 1, load<f32>(p, 4));
  if (count > 2) x = f32x4.replace_lane(x, 2, load<f32>(p, 8));
  return x;
}

/** Stores the first `count` lanes, four at most. */
// @ts-ignore: decorator
@inline
export function storeUpTo4(p: usize, x: v128, count: i32): void {
  if (count >= 4) {
    v128.store(p, x);
    return;
  }
  store<f32>(p, f32x4.extract_lane(x, 0));
  if (count > 1) store<f32>(p, f32x4.extract_lane(x, 1), 4);
  if (count > 2) store<f32>(p, f32x4.extract_lane(x, 2), 8);
}

// Products of float32 rows, for distances that are looked at again in float64 where they are close.

const KC: i32 = 256;

/**
 * Inner products of rows of two sets. Each set lies in parts of 256 features, a part in panels of 8 rows, a panel with the
 * 8 values of a feature side by side; what is missing in a panel are zeros. Panels `aFrom` to `aTo` of the first set meet
 * `bFrom` to `bTo` of the second; product (i, j) of them goes to out[i·ldOut + j], j counted from the whole second set.
 *
 * @param aPanels panels of the whole set, likewise `bPanels`
 */
export function singleProducts(a: usize, aPanels: i32, aFrom: i32, aTo: i32, b: usize, bPanels: i32, bFrom: i32, bTo: i32, features: i32, out: usize, ldOut: i32): void {
  const row = <usize>ldOut << 2;
  for (let k0: i32 = 0; k0 < features; k0 += KC) {
    const kc = min(KC, features - k0);
    const panel = <usize>kc << 5;
    const aPart = a + (<usize>k0 * <usize>aPanels << 5);
    const bPart = b + (<usize>k0 * <usize>bPanels << 5);
    for (let j = bFrom; j < bTo; ++j) {
      const bPanel = bPart + <usize>j * panel;
      for (let i = aFrom; i < aTo; ++i) {
        const aPanel = aPart + <usize>i * panel;
        const to = out + <usize>((i - aFrom) * 8) * row + (<usize>j << 5);
        tile(aPanel, bPanel, kc, to, row, k0 > 0);
        tile(aPanel + 16, bPanel, kc, to + 4 * row, row, k0 > 0);
      }
    }
  }
}

/** c (4×8) = or += four rows of a panel against the eight of another. */
function tile(a: usize, b: usize, kc: i32, c: usize, ldc: usize, accumulate: bool): void {
  let c00 = f32x4.splat(0);
  let c01 = c00;
  let c10 = c00;
  let c11 = c00;
  let c20 = c00;
  let c21 = c00;
  let c30 = c00;
  let c31 = c00;
  const end = a + (<usize>kc << 5);
  while (a < end) {
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);
    let s = v128.load32_splat(a);
    c00 = f32x4.add(c00, f32x4.mul(s, b0));
    c01 = f32x4.add(c01, f32x4.mul(s, b1));
    s = v128.load32_splat(a, 4);
    c10 = f32x4.add(c10, f32x4.mul(s, b0));
    c11 = f32x4.add(c11, f32x4.mul(s, b1));
    s = v128.load32_splat(a, 8);
    c20 = f32x4.add(c20, f32x4.mul(s, b0));
    c21 = f32x4.add(c21, f32x4.mul(s, b1));
    s = v128.load32_splat(a, 12);
    c30 = f32x4.add(c30, f32x4.mul(s, b0));
    c31 = f32x4.add(c31, f32x4.mul(s, b1));
    a += 32;
    b += 32;
  }
  if (accumulate) {
    let p = c;
    c00 = f32x4.add(c00, v128.load(p));
    c01 = f32x4.add(c01, v128.load(p, 16));
    p += ldc;
    c10 = f32x4.add(c10, v128.load(p));
    c11 = f32x4.add(c11, v128.load(p, 16));
    p += ldc;
    c20 = f32x4.add(c20, v128.load(p));
    c21 = f32x4.add(c21, v128.load(p, 16));
    p += ldc;
    c30 = f32x4.add(c30, v128.load(p));
    c31 = f32x4.add(c31, v128.load(p, 16));
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

import { tile } from './tile';

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
        tile<f32>(aPanel, bPanel, kc, to, row, k0 > 0);
        tile<f32>(aPanel + 16, bPanel, kc, to + 4 * row, row, k0 > 0);
      }
    }
  }
}

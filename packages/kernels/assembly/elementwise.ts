import { exp4, loadUpTo4, max4, sigmoid4, storeUpTo4, sum4 } from './math';

// tanh-GELU as x·σ(2u), u = √(2/π)(x + 0.044715x³), since (1 + tanh u)/2 = σ(2u)
const A: f32 = 1.5957691216057308; // 2√(2/π)
const B: f32 = 0.07135481627260025; // A · 0.044715

export function gelu(x: usize, y: usize, n: i32): void {
  for (let i: i32 = 0; i < n; i += 4) {
    const at = <usize>i << 2;
    const v = loadUpTo4(x + at, n - i);
    const u = f32x4.mul(v, f32x4.add(f32x4.splat(A), f32x4.mul(f32x4.splat(B), f32x4.mul(v, v))));
    storeUpTo4(y + at, f32x4.mul(v, sigmoid4(u)), n - i);
  }
}

export function geluGrad(dy: usize, x: usize, dx: usize, n: i32): void {
  const one = f32x4.splat(1);
  for (let i: i32 = 0; i < n; i += 4) {
    const at = <usize>i << 2;
    const v = loadUpTo4(x + at, n - i);
    const square = f32x4.mul(v, v);
    const s = sigmoid4(f32x4.mul(v, f32x4.add(f32x4.splat(A), f32x4.mul(f32x4.splat(B), square))));
    const slope = f32x4.add(f32x4.splat(A), f32x4.mul(f32x4.splat(3 * B), square));
    const d = f32x4.add(s, f32x4.mul(f32x4.mul(v, f32x4.mul(s, f32x4.sub(one, s))), slope));
    storeUpTo4(dx + at, f32x4.mul(loadUpTo4(dy + at, n - i), d), n - i);
  }
}

export function silu(x: usize, y: usize, n: i32): void {
  for (let i: i32 = 0; i < n; i += 4) {
    const at = <usize>i << 2;
    const v = loadUpTo4(x + at, n - i);
    storeUpTo4(y + at, f32x4.mul(v, sigmoid4(v)), n - i);
  }
}

export function siluGrad(dy: usize, x: usize, dx: usize, n: i32): void {
  const one = f32x4.splat(1);
  for (let i: i32 = 0; i < n; i += 4) {
    const at = <usize>i << 2;
    const v = loadUpTo4(x + at, n - i);
    const s = sigmoid4(v);
    const d = f32x4.mul(s, f32x4.add(one, f32x4.mul(v, f32x4.sub(one, s))));
    storeUpTo4(dx + at, f32x4.mul(loadUpTo4(dy + at, n - i), d), n - i);
  }
}

/** y = x + gate·branch, gate one row for each of the `batch` groups of `rows` rows. */
export function gatedAdd(x: usize, gate: usize, branch: usize, y: usize, batch: i32, rows: i32, d: i32): void {
  for (let n: i32 = 0; n < batch; ++n) {
    const g = gate + (<usize>(n * d) << 2);
    for (let t: i32 = 0; t < rows; ++t) {
      const row = <usize>((n * rows + t) * d) << 2;
      for (let j: i32 = 0; j < d; j += 4) {
        const at = <usize>j << 2;
        const left = d - j;
        storeUpTo4(y + row + at, f32x4.add(loadUpTo4(x + row + at, left), f32x4.mul(loadUpTo4(g + at, left), loadUpTo4(branch + row + at, left))), left);
      }
    }
  }
}

/** dGate = Σ over rows of dy·branch; dBranch = gate·dy. */
export function gatedAddGrad(dy: usize, gate: usize, branch: usize, dGate: usize, dBranch: usize, batch: i32, rows: i32, d: i32): void {
  memory.fill(dGate, 0, <usize>(batch * d) << 2);
  for (let n: i32 = 0; n < batch; ++n) {
    const g = gate + (<usize>(n * d) << 2);
    const dg = dGate + (<usize>(n * d) << 2);
    for (let t: i32 = 0; t < rows; ++t) {
      const row = <usize>((n * rows + t) * d) << 2;
      for (let j: i32 = 0; j < d; j += 4) {
        const at = <usize>j << 2;
        const left = d - j;
        const v = loadUpTo4(dy + row + at, left);
        storeUpTo4(dg + at, f32x4.add(loadUpTo4(dg + at, left), f32x4.mul(v, loadUpTo4(branch + row + at, left))), left);
        storeUpTo4(dBranch + row + at, f32x4.mul(v, loadUpTo4(g + at, left)), left);
      }
    }
  }
}

/** One AdamW update of `n` values; `decay` is 1 − lr·weightDecay, `rate` lr/(1 − β₁ᵗ), `root` 1/√(1 − β₂ᵗ). */
export function adamw(p: usize, g: usize, m: usize, v: usize, pOut: usize, mOut: usize, vOut: usize, n: i32, beta1: f32, beta2: f32, epsilon: f32, decay: f32, rate: f32, root: f32, scale: f32): void {
  const b1 = f32x4.splat(beta1);
  const b2 = f32x4.splat(beta2);
  const c1 = f32x4.splat(1 - beta1);
  const c2 = f32x4.splat(1 - beta2);
  for (let i: i32 = 0; i < n; i += 4) {
    const at = <usize>i << 2;
    const left = n - i;
    const gradient = f32x4.mul(loadUpTo4(g + at, left), f32x4.splat(scale));
    const first = f32x4.add(f32x4.mul(b1, loadUpTo4(m + at, left)), f32x4.mul(c1, gradient));
    const second = f32x4.add(f32x4.mul(b2, loadUpTo4(v + at, left)), f32x4.mul(c2, f32x4.mul(gradient, gradient)));
    const denominator = f32x4.add(f32x4.mul(f32x4.sqrt(second), f32x4.splat(root)), f32x4.splat(epsilon));
    const step = f32x4.div(f32x4.mul(first, f32x4.splat(rate)), denominator);
    storeUpTo4(mOut + at, first, left);
    storeUpTo4(vOut + at, second, left);
    storeUpTo4(pOut + at, f32x4.sub(f32x4.mul(loadUpTo4(p + at, left), f32x4.splat(decay)), step), left);
  }
}

/** Σ x², summed in float64. */
export function sumOfSquares(x: usize, n: i32): f64 {
  let total: f64 = 0;
  for (let i: i32 = 0; i < n; i += 256) {
    const end = min(n, i + 256);
    let part = f32x4.splat(0);
    for (let j = i; j < end; j += 4) {
      const v = loadUpTo4(x + (<usize>j << 2), end - j);
      part = f32x4.add(part, f32x4.mul(v, v));
    }
    total += <f64>f32x4.extract_lane(part, 0) + <f64>f32x4.extract_lane(part, 1) + <f64>f32x4.extract_lane(part, 2) + <f64>f32x4.extract_lane(part, 3);
  }
  return total;
}

/** Each row becomes its softmax after multiplication by `scale`, in place. */
export function softmaxRows(x: usize, rows: i32, n: i32, scale: f32): void {
  const whole = n & ~3;
  const factor = f32x4.splat(scale);
  for (let i: i32 = 0; i < rows; ++i) {
    const row = x + (<usize>(i * n) << 2);
    let peak = f32x4.splat(-f32.MAX_VALUE);
    for (let j: i32 = 0; j < whole; j += 4) peak = f32x4.pmax(peak, f32x4.mul(v128.load(row + (<usize>j << 2)), factor));
    let most = max4(peak);
    for (let j = whole; j < n; ++j) most = max(most, load<f32>(row + (<usize>j << 2)) * scale);
    const top = f32x4.splat(most);
    let sums = f32x4.splat(0);
    for (let j: i32 = 0; j < whole; j += 4) {
      const p = row + (<usize>j << 2);
      const e = exp4(f32x4.sub(f32x4.mul(v128.load(p), factor), top));
      v128.store(p, e);
      sums = f32x4.add(sums, e);
    }
    let total = sum4(sums);
    if (whole < n) {
      const p = row + (<usize>whole << 2);
      const e = exp4(f32x4.sub(f32x4.mul(loadUpTo4(p, n - whole), factor), top));
      storeUpTo4(p, e, n - whole);
      for (let j = whole; j < n; ++j) total += load<f32>(row + (<usize>j << 2));
    }
    const inverse = f32x4.splat(1 / total);
    for (let j: i32 = 0; j < n; j += 4) {
      const p = row + (<usize>j << 2);
      storeUpTo4(p, f32x4.mul(loadUpTo4(p, n - j), inverse), n - j);
    }
  }
}

/** Gradient of {@link softmaxRows}: dP becomes P·(dP − Σ P·dP)·scale, in place. */
export function softmaxGradRows(p: usize, dP: usize, rows: i32, n: i32, scale: f32): void {
  for (let i: i32 = 0; i < rows; ++i) {
    const row = <usize>(i * n) << 2;
    let sums = f32x4.splat(0);
    for (let j: i32 = 0; j < n; j += 4) {
      const at = row + (<usize>j << 2);
      sums = f32x4.add(sums, f32x4.mul(loadUpTo4(p + at, n - j), loadUpTo4(dP + at, n - j)));
    }
    const dot = f32x4.splat(sum4(sums));
    const factor = f32x4.splat(scale);
    for (let j: i32 = 0; j < n; j += 4) {
      const at = row + (<usize>j << 2);
      storeUpTo4(dP + at, f32x4.mul(f32x4.mul(loadUpTo4(p + at, n - j), f32x4.sub(loadUpTo4(dP + at, n - j), dot)), factor), n - j);
    }
  }
}

/**
 * Copies a slice of a matrix, times alpha, to panels four wide: each holds, for every one of `kc` steps, four values
 * side by side. Step k of line w is at from[k·stepStride + w·lineStride]. Lines beyond `width` are zeros.
 */
export function packSlice(from: usize, stepStride: i32, lineStride: i32, kc: i32, width: i32, alpha: f64, to: usize): void {
  const panel = <usize>kc << 5;
  const whole = width >> 2;
  const step = <usize>stepStride << 3;
  const line = <usize>lineStride << 3;
  if (lineStride == 1) packRows(from, step, kc, whole, alpha, to, panel);
  else if (stepStride == 1) packColumns(from, line, kc, whole, alpha, to, panel);
  else packAny(from, step, line, kc, whole, alpha, to, panel);
  const left = width & 3;
  if (left > 0) {
    const last = to + <usize>whole * panel;
    memory.fill(last, 0, panel);
    for (let k: i32 = 0; k < kc; ++k) {
      for (let w: i32 = 0; w < left; ++w) store<f64>(last + (<usize>(4 * k + w) << 3), alpha * load<f64>(from + <usize>k * step + <usize>(4 * whole + w) * line));
    }
  }
}

/** The four values of a step lie side by side. Eight steps at a time, so that each panel takes whole cache lines. */
function packRows(from: usize, step: usize, kc: i32, panels: i32, alpha: f64, to: usize, panel: usize): void {
  const scale = f64x2.splat(alpha);
  for (let k0: i32 = 0; k0 < kc; k0 += 8) {
    const steps = min(8, kc - k0);
    const source = from + <usize>k0 * step;
    for (let w: i32 = 0; w < panels; ++w) {
      let p = source + (<usize>w << 5);
      let q = to + <usize>w * panel + (<usize>k0 << 5);
      for (let k: i32 = 0; k < steps; ++k) {
        v128.store(q, f64x2.mul(scale, v128.load(p)));
        v128.store(q, f64x2.mul(scale, v128.load(p, 16)), 16);
        p += step;
        q += 32;
      }
    }
  }
}

/** The steps of a line lie side by side: blocks of 2×2 are transposed on the way. */
function packColumns(from: usize, line: usize, kc: i32, panels: i32, alpha: f64, to: usize, panel: usize): void {
  const scale = f64x2.splat(alpha);
  for (let w: i32 = 0; w < panels; ++w) {
    let p0 = from + <usize>(4 * w) * line;
    let p1 = p0 + line;
    let p2 = p1 + line;
    let p3 = p2 + line;
    let q = to + <usize>w * panel;
    for (let k: i32 = 0; k + 2 <= kc; k += 2) {
      const r0 = f64x2.mul(scale, v128.load(p0));
      const r1 = f64x2.mul(scale, v128.load(p1));
      const r2 = f64x2.mul(scale, v128.load(p2));
      const r3 = f64x2.mul(scale, v128.load(p3));
      v128.store(q, v128.shuffle<f64>(r0, r1, 0, 2));
      v128.store(q, v128.shuffle<f64>(r2, r3, 0, 2), 16);
      v128.store(q, v128.shuffle<f64>(r0, r1, 1, 3), 32);
      v128.store(q, v128.shuffle<f64>(r2, r3, 1, 3), 48);
      p0 += 16;
      p1 += 16;
      p2 += 16;
      p3 += 16;
      q += 64;
    }
    if ((kc & 1) == 1) {
      store<f64>(q, alpha * load<f64>(p0));
      store<f64>(q, alpha * load<f64>(p1), 8);
      store<f64>(q, alpha * load<f64>(p2), 16);
      store<f64>(q, alpha * load<f64>(p3), 24);
    }
  }
}

function packAny(from: usize, step: usize, line: usize, kc: i32, panels: i32, alpha: f64, to: usize, panel: usize): void {
  for (let w: i32 = 0; w < panels; ++w) {
    let q = to + <usize>w * panel;
    for (let k: i32 = 0; k < kc; ++k) {
      let p = from + <usize>k * step + <usize>(4 * w) * line;
      for (let i: i32 = 0; i < 4; ++i) {
        store<f64>(q, alpha * load<f64>(p));
        p += line;
        q += 8;
      }
    }
  }
}

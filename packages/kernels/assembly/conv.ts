import { gemm } from './gemm';
import { loadUpTo4, storeUpTo4 } from './math';

// Convolution of NHWC images as products over unfolded patches, one image at a time.

/** [out, in, taps] → [out, taps, in], or back. */
export function swapTaps(from: usize, to: usize, out: i32, inner: i32, taps: i32): void {
  for (let o: i32 = 0; o < out; ++o) {
    const base = o * inner * taps;
    for (let c: i32 = 0; c < inner; ++c) {
      for (let t: i32 = 0; t < taps; ++t) store<f32>(to + (<usize>(base + t * inner + c) << 2), load<f32>(from + (<usize>(base + c * taps + t) << 2)));
    }
  }
}

/** Rows of `columns`: for each output pixel its kh·kw·c inputs, zeros outside the image. */
function unfold(x: usize, columns: usize, h: i32, w: i32, c: i32, kh: i32, kw: i32, stride: i32, top: i32, left: i32, oh: i32, ow: i32): void {
  const bytes = <usize>c << 2;
  let to = columns;
  for (let oy: i32 = 0; oy < oh; ++oy) {
    for (let ox: i32 = 0; ox < ow; ++ox) {
      for (let ky: i32 = 0; ky < kh; ++ky) {
        const y = oy * stride + ky - top;
        for (let kx: i32 = 0; kx < kw; ++kx) {
          const xx = ox * stride + kx - left;
          if (y >= 0 && y < h && xx >= 0 && xx < w) memory.copy(to, x + (<usize>((y * w + xx) * c) << 2), bytes);
          else memory.fill(to, 0, bytes);
          to += bytes;
        }
      }
    }
  }
}

/** Adds what {@link unfold} took apart back onto the image. */
function fold(columns: usize, x: usize, h: i32, w: i32, c: i32, kh: i32, kw: i32, stride: i32, top: i32, left: i32, oh: i32, ow: i32): void {
  let from = columns;
  for (let oy: i32 = 0; oy < oh; ++oy) {
    for (let ox: i32 = 0; ox < ow; ++ox) {
      for (let ky: i32 = 0; ky < kh; ++ky) {
        const y = oy * stride + ky - top;
        for (let kx: i32 = 0; kx < kw; ++kx) {
          const xx = ox * stride + kx - left;
          if (y >= 0 && y < h && xx >= 0 && xx < w) {
            const to = x + (<usize>((y * w + xx) * c) << 2);
            for (let j: i32 = 0; j < c; j += 4) {
              const at = <usize>j << 2;
              storeUpTo4(to + at, f32x4.add(loadUpTo4(to + at, c - j), loadUpTo4(from + at, c - j)), c - j);
            }
          }
          from += <usize>c << 2;
        }
      }
    }
  }
}

/** y = conv(x, w) + bias (0: none); `taps` is w as [out, kh·kw, in]; `scratch` holds oh·ow·kh·kw·c floats, then gemm's. */
export function conv2d(x: usize, taps: usize, bias: usize, y: usize, batch: i32, h: i32, w: i32, c: i32, out: i32, kh: i32, kw: i32, stride: i32, top: i32, left: i32, oh: i32, ow: i32, scratch: usize): void {
  const k = kh * kw * c;
  const pixels = oh * ow;
  const inner = (scratch + (<usize>(pixels * k) << 2) + 15) & ~15;
  const plain = kh == 1 && kw == 1 && stride == 1 && oh == h && ow == w;
  for (let n: i32 = 0; n < batch; ++n) {
    const image = x + (<usize>(n * h * w * c) << 2);
    const to = y + (<usize>(n * pixels * out) << 2);
    if (!plain) unfold(image, scratch, h, w, c, kh, kw, stride, top, left, oh, ow);
    gemm(plain ? image : scratch, k, 1, taps, k, true, to, out, pixels, out, k, false, bias, inner);
  }
}

/** dTaps = Σ dyᵀ·columns. */
export function conv2dGradWeight(dy: usize, x: usize, dTaps: usize, batch: i32, h: i32, w: i32, c: i32, out: i32, kh: i32, kw: i32, stride: i32, top: i32, left: i32, oh: i32, ow: i32, scratch: usize): void {
  const k = kh * kw * c;
  const pixels = oh * ow;
  const inner = (scratch + (<usize>(pixels * k) << 2) + 15) & ~15;
  for (let n: i32 = 0; n < batch; ++n) {
    unfold(x + (<usize>(n * h * w * c) << 2), scratch, h, w, c, kh, kw, stride, top, left, oh, ow);
    gemm(dy + (<usize>(n * pixels * out) << 2), 1, out, scratch, k, false, dTaps, k, out, k, pixels, n > 0, 0, inner);
  }
}

/** dx, folded from dy·taps. */
export function conv2dGradInput(dy: usize, taps: usize, dx: usize, batch: i32, h: i32, w: i32, c: i32, out: i32, kh: i32, kw: i32, stride: i32, top: i32, left: i32, oh: i32, ow: i32, scratch: usize): void {
  const k = kh * kw * c;
  const pixels = oh * ow;
  const inner = (scratch + (<usize>(pixels * k) << 2) + 15) & ~15;
  memory.fill(dx, 0, <usize>(batch * h * w * c) << 2);
  for (let n: i32 = 0; n < batch; ++n) {
    gemm(dy + (<usize>(n * pixels * out) << 2), out, 1, taps, k, false, scratch, k, pixels, k, out, false, 0, inner);
    fold(scratch, dx + (<usize>(n * h * w * c) << 2), h, w, c, kh, kw, stride, top, left, oh, ow);
  }
}

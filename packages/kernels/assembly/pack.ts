/**
 * Packs `count` vectors of `kc` values into panels of `width` (4 or 8) vectors, in which the values of one k lie side by
 * side: what a tile reads is one stream. Value k of vector j is at from[k·sk + j·sj]; a last panel is filled up with zeros.
 */
export function packPanels(from: usize, sk: i32, sj: i32, kc: i32, count: i32, width: i32, to: usize): void {
  const panelBytes = <usize>(kc * width) << 2;
  let j: i32 = 0;
  if (sj == 1 || sk == 1) {
    for (; j + width <= count; j += width) {
      const at = from + (<usize>(j * sj) << 2);
      if (sj == 1) copyRows(at, <usize>sk << 2, kc, width, to);
      else {
        for (let h: i32 = 0; h < width; h += 4) transpose4(at + (<usize>(h * sj) << 2), <usize>sj << 2, kc, to + (<usize>h << 2), <usize>width << 2);
      }
      to += panelBytes;
    }
  }
  for (; j < count; j += width) {
    let d = to;
    for (let k: i32 = 0; k < kc; ++k) {
      for (let h: i32 = 0; h < width; ++h) {
        store<f32>(d, j + h < count ? load<f32>(from + (<usize>(k * sk + (j + h) * sj) << 2)) : 0);
        d += 4;
      }
    }
    to += panelBytes;
  }
}

/** Vectors lie side by side already. */
function copyRows(from: usize, stride: usize, kc: i32, width: i32, to: usize): void {
  if (width == 4) {
    for (let k: i32 = 0; k < kc; ++k) {
      v128.store(to, v128.load(from));
      from += stride;
      to += 16;
    }
    return;
  }
  for (let k: i32 = 0; k < kc; ++k) {
    v128.store(to, v128.load(from));
    v128.store(to, v128.load(from, 16), 16);
    from += stride;
    to += 32;
  }
}

/** Four vectors, each contiguous and `stride` bytes from the next; places of successive k are `width` bytes apart in `to`. */
function transpose4(from: usize, stride: usize, kc: i32, to: usize, width: usize): void {
  let p0 = from;
  let p1 = p0 + stride;
  let p2 = p1 + stride;
  let p3 = p2 + stride;
  const whole = kc & ~3;
  for (let k: i32 = 0; k < whole; k += 4) {
    const r0 = v128.load(p0);
    const r1 = v128.load(p1);
    const r2 = v128.load(p2);
    const r3 = v128.load(p3);
    const t0 = v128.shuffle<f32>(r0, r1, 0, 4, 1, 5);
    const t1 = v128.shuffle<f32>(r2, r3, 0, 4, 1, 5);
    const t2 = v128.shuffle<f32>(r0, r1, 2, 6, 3, 7);
    const t3 = v128.shuffle<f32>(r2, r3, 2, 6, 3, 7);
    v128.store(to, v128.shuffle<f32>(t0, t1, 0, 1, 4, 5));
    to += width;
    v128.store(to, v128.shuffle<f32>(t0, t1, 2, 3, 6, 7));
    to += width;
    v128.store(to, v128.shuffle<f32>(t2, t3, 0, 1, 4, 5));
    to += width;
    v128.store(to, v128.shuffle<f32>(t2, t3, 2, 3, 6, 7));
    to += width;
    p0 += 16;
    p1 += 16;
    p2 += 16;
    p3 += 16;
  }
  for (let k: i32 = whole; k < kc; ++k) {
    store<f32>(to, load<f32>(p0));
    store<f32>(to, load<f32>(p1), 4);
    store<f32>(to, load<f32>(p2), 8);
    store<f32>(to, load<f32>(p3), 12);
    to += width;
    p0 += 4;
    p1 += 4;
    p2 += 4;
    p3 += 4;
  }
}

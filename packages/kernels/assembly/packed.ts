// Weights held as float16 (two a word), as bytes with a scale a row (four a word), or as half bytes with a scale for every
// 32 values (eight a word), low bits first.

/** 2¹¹²: what a float16's bits, moved to where a float32 has them, are too small by; it makes subnormals right as well. */
const REBIAS: f32 = 5.192296858534828e33;

/** `count` values of a row, as float32. Whole words are read. */
export function expandRow(from: usize, bits: i32, scale: f32, to: usize, count: i32): void {
  if (bits == 16) {
    const whole = count & ~3;
    for (let i: i32 = 0; i < whole; i += 4) v128.store(to + (<usize>i << 2), halves(v128.load16x4_u(from + (<usize>i << 1))));
    for (let i: i32 = whole; i < count; ++i) store<f32>(to + (<usize>i << 2), half(load<u16>(from + (<usize>i << 1))));
    return;
  }
  const whole = count & ~7;
  const factor = f32x4.splat(scale);
  for (let i: i32 = 0; i < whole; i += 8) {
    const wide = v128.load8x8_s(from + <usize>i);
    v128.store(to + (<usize>i << 2), f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(wide)), factor));
    v128.store(to + (<usize>i << 2), f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(wide)), factor), 16);
  }
  for (let i: i32 = whole; i < count; ++i) store<f32>(to + (<usize>i << 2), <f32>load<i8>(from + <usize>i) * scale);
}

/** `count` values of a row of half bytes, from the start of a group of 32 on, each group with its scale. Whole words are read. */
export function expandRowOfFours(from: usize, scales: usize, to: usize, count: i32): void {
  for (let i: i32 = 0; i < count; ++i) {
    const shifted = <i32>load<u8>(from + (<usize>i >> 1)) << (28 - ((i & 1) << 2));
    store<f32>(to + (<usize>i << 2), <f32>(shifted >> 28) * load<f32>(scales + (<usize>(i >> 5) << 2)));
  }
}

/** All rows: `[rows, rowWords]` words to `[rows, count]` floats. */
export function expandRows(words: usize, rowWords: i32, bits: i32, scale: usize, to: usize, rows: i32, count: i32): void {
  for (let r: i32 = 0; r < rows; ++r) {
    if (bits == 4) expandRowOfFours(words + (<usize>(r * rowWords) << 2), scale + (<usize>(r * ((count + 31) >> 5)) << 2), to + (<usize>(r * count) << 2), count);
    else expandRow(words + (<usize>(r * rowWords) << 2), bits, bits == 8 ? load<f32>(scale + (<usize>r << 2)) : 1, to + (<usize>(r * count) << 2), count);
  }
}

// @ts-ignore: decorator
@inline
function halves(h: v128): v128 {
  const sign = i32x4.shl(v128.and(h, i32x4.splat(0x8000)), 16);
  const magnitude = f32x4.mul(i32x4.shl(v128.and(h, i32x4.splat(0x7fff)), 13), f32x4.splat(REBIAS));
  return v128.or(magnitude, sign);
}

// @ts-ignore: decorator
@inline
function half(h: u32): f32 {
  const magnitude = reinterpret<f32>((h & 0x7fff) << 13) * REBIAS;
  return h & 0x8000 ? -magnitude : magnitude;
}

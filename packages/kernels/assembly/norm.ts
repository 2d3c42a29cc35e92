import { loadUpTo4, storeUpTo4, sum4 } from './math';

/** Mean of a row of `d` values. */
// @ts-ignore: decorator
@inline
function meanOf(row: usize, d: i32): f32 {
  let total = f32x4.splat(0);
  for (let j: i32 = 0; j < d; j += 4) total = f32x4.add(total, loadUpTo4(row + (<usize>j << 2), d - j));
  return sum4(total) / <f32>d;
}

/** 1/√(variance + ε) of a row around its mean. */
// @ts-ignore: decorator
@inline
function inverseDeviation(row: usize, d: i32, mean: f32, epsilon: f32): f32 {
  let total = f32x4.splat(0);
  const whole = d & ~3;
  const m = f32x4.splat(mean);
  for (let j: i32 = 0; j < whole; j += 4) {
    const v = f32x4.sub(v128.load(row + (<usize>j << 2)), m);
    total = f32x4.add(total, f32x4.mul(v, v));
  }
  let sum = sum4(total);
  for (let j: i32 = whole; j < d; ++j) {
    const v = load<f32>(row + (<usize>j << 2)) - mean;
    sum += v * v;
  }
  return 1 / Mathf.sqrt(sum / <f32>d + epsilon);
}

/**
 * y = x̂·(one + gain) + shift over rows of `d`; `gain` and `shift` have a row for every `group` rows of x, or are 0.
 */
export function norm(x: usize, gain: usize, shift: usize, y: usize, rows: i32, group: i32, d: i32, one: f32, epsilon: f32): void {
  for (let i: i32 = 0; i < rows; ++i) {
    const offset = <usize>(i * d) << 2;
    const own = <usize>((i / group) * d) << 2;
    const mean = meanOf(x + offset, d);
    const scale = f32x4.splat(inverseDeviation(x + offset, d, mean, epsilon));
    const m = f32x4.splat(mean);
    for (let j: i32 = 0; j < d; j += 4) {
      const at = <usize>j << 2;
      const left = d - j;
      let v = f32x4.mul(f32x4.sub(loadUpTo4(x + offset + at, left), m), scale);
      if (gain != 0) v = f32x4.mul(v, f32x4.add(f32x4.splat(one), loadUpTo4(gain + own + at, left)));
      if (shift != 0) v = f32x4.add(v, loadUpTo4(shift + own + at, left));
      storeUpTo4(y + offset + at, v, left);
    }
  }
}

/** Gradients of {@link norm}; `dGain` and `dShift` (both or neither 0) are summed over their groups. */
export function normGrad(dy: usize, x: usize, gain: usize, dx: usize, dGain: usize, dShift: usize, rows: i32, group: i32, d: i32, one: f32, epsilon: f32): void {
  const groups = (rows + group - 1) / group;
  if (dGain != 0) memory.fill(dGain, 0, <usize>(groups * d) << 2);
  if (dShift != 0) memory.fill(dShift, 0, <usize>(groups * d) << 2);
  for (let i: i32 = 0; i < rows; ++i) {
    const offset = <usize>(i * d) << 2;
    const own = <usize>((i / group) * d) << 2;
    const mean = meanOf(x + offset, d);
    const inverse = inverseDeviation(x + offset, d, mean, epsilon);
    const m = f32x4.splat(mean);
    const scale = f32x4.splat(inverse);
    let sum = f32x4.splat(0);
    let dot = f32x4.splat(0);
    for (let j: i32 = 0; j < d; j += 4) {
      const at = <usize>j << 2;
      const left = d - j;
      const g = loadUpTo4(dy + offset + at, left);
      const hat = f32x4.mul(f32x4.sub(loadUpTo4(x + offset + at, left), m), scale);
      if (dGain != 0) storeUpTo4(dGain + own + at, f32x4.add(loadUpTo4(dGain + own + at, left), f32x4.mul(g, hat)), left);
      if (dShift != 0) storeUpTo4(dShift + own + at, f32x4.add(loadUpTo4(dShift + own + at, left), g), left);
      const through = gain != 0 ? f32x4.mul(g, f32x4.add(f32x4.splat(one), loadUpTo4(gain + own + at, left))) : g;
      // lanes beyond the row: g is 0 there, so that both sums are right
      sum = f32x4.add(sum, through);
      dot = f32x4.add(dot, f32x4.mul(through, hat));
    }
    const meanG = f32x4.splat(sum4(sum) / <f32>d);
    const meanDot = f32x4.splat(sum4(dot) / <f32>d);
    for (let j: i32 = 0; j < d; j += 4) {
      const at = <usize>j << 2;
      const left = d - j;
      const g = loadUpTo4(dy + offset + at, left);
      const hat = f32x4.mul(f32x4.sub(loadUpTo4(x + offset + at, left), m), scale);
      const through = gain != 0 ? f32x4.mul(g, f32x4.add(f32x4.splat(one), loadUpTo4(gain + own + at, left))) : g;
      storeUpTo4(dx + offset + at, f32x4.mul(scale, f32x4.sub(f32x4.sub(through, meanG), f32x4.mul(hat, meanDot))), left);
    }
  }
}

/** Per channel of one image (`pixels` × `c`): mean and inverse deviation of its group, in `means` and `inverses`. */
function groupStatistics(x: usize, pixels: i32, c: i32, groups: i32, epsilon: f32, means: usize, inverses: usize): void {
  const width = c / groups;
  const count = <f32>(pixels * width);
  memory.fill(means, 0, <usize>c << 2);
  for (let p: i32 = 0; p < pixels; ++p) {
    const row = x + (<usize>(p * c) << 2);
    for (let j: i32 = 0; j < c; j += 4) {
      const at = <usize>j << 2;
      storeUpTo4(means + at, f32x4.add(loadUpTo4(means + at, c - j), loadUpTo4(row + at, c - j)), c - j);
    }
  }
  spread(means, c, width, count);
  memory.fill(inverses, 0, <usize>c << 2);
  for (let p: i32 = 0; p < pixels; ++p) {
    const row = x + (<usize>(p * c) << 2);
    for (let j: i32 = 0; j < c; j += 4) {
      const at = <usize>j << 2;
      const v = f32x4.sub(loadUpTo4(row + at, c - j), loadUpTo4(means + at, c - j));
      storeUpTo4(inverses + at, f32x4.add(loadUpTo4(inverses + at, c - j), f32x4.mul(v, v)), c - j);
    }
  }
  spread(inverses, c, width, count);
  for (let j: i32 = 0; j < c; ++j) {
    const p = inverses + (<usize>j << 2);
    store<f32>(p, 1 / Mathf.sqrt(load<f32>(p) + epsilon));
  }
}

/** Each channel's value becomes the sum over its group of `width` channels, divided by `count`. */
function spread(values: usize, c: i32, width: i32, count: f32): void {
  for (let g: i32 = 0; g < c; g += width) {
    let total: f32 = 0;
    for (let j: i32 = 0; j < width; ++j) total += load<f32>(values + (<usize>(g + j) << 2));
    for (let j: i32 = 0; j < width; ++j) store<f32>(values + (<usize>(g + j) << 2), total / count);
  }
}

/** Group norm of NHWC images; `scratch` holds 2·c floats. */
export function groupNorm(x: usize, weight: usize, bias: usize, y: usize, batch: i32, pixels: i32, c: i32, groups: i32, epsilon: f32, scratch: usize): void {
  const means = scratch;
  const inverses = scratch + (<usize>c << 2);
  for (let n: i32 = 0; n < batch; ++n) {
    const image = <usize>(n * pixels * c) << 2;
    groupStatistics(x + image, pixels, c, groups, epsilon, means, inverses);
    for (let p: i32 = 0; p < pixels; ++p) {
      const row = image + (<usize>(p * c) << 2);
      for (let j: i32 = 0; j < c; j += 4) {
        const at = <usize>j << 2;
        const left = c - j;
        const hat = f32x4.mul(f32x4.sub(loadUpTo4(x + row + at, left), loadUpTo4(means + at, left)), loadUpTo4(inverses + at, left));
        storeUpTo4(y + row + at, f32x4.add(f32x4.mul(hat, loadUpTo4(weight + at, left)), loadUpTo4(bias + at, left)), left);
      }
    }
  }
}

/** Gradients of {@link groupNorm}; `scratch` holds 4·c floats. */
export function groupNormGrad(dy: usize, x: usize, weight: usize, dx: usize, dWeight: usize, dBias: usize, batch: i32, pixels: i32, c: i32, groups: i32, epsilon: f32, scratch: usize): void {
  const bytes = <usize>c << 2;
  const means = scratch;
  const inverses = scratch + bytes;
  const sums = inverses + bytes;
  const dots = sums + bytes;
  const width = c / groups;
  memory.fill(dWeight, 0, bytes);
  memory.fill(dBias, 0, bytes);
  for (let n: i32 = 0; n < batch; ++n) {
    const image = <usize>(n * pixels * c) << 2;
    groupStatistics(x + image, pixels, c, groups, epsilon, means, inverses);
    memory.fill(sums, 0, bytes);
    memory.fill(dots, 0, bytes);
    for (let p: i32 = 0; p < pixels; ++p) {
      const row = image + (<usize>(p * c) << 2);
      for (let j: i32 = 0; j < c; j += 4) {
        const at = <usize>j << 2;
        const left = c - j;
        const g = loadUpTo4(dy + row + at, left);
        const hat = f32x4.mul(f32x4.sub(loadUpTo4(x + row + at, left), loadUpTo4(means + at, left)), loadUpTo4(inverses + at, left));
        storeUpTo4(sums + at, f32x4.add(loadUpTo4(sums + at, left), g), left);
        storeUpTo4(dots + at, f32x4.add(loadUpTo4(dots + at, left), f32x4.mul(g, hat)), left);
      }
    }
    for (let j: i32 = 0; j < c; ++j) {
      const at = <usize>j << 2;
      store<f32>(dBias + at, load<f32>(dBias + at) + load<f32>(sums + at));
      store<f32>(dWeight + at, load<f32>(dWeight + at) + load<f32>(dots + at));
      store<f32>(sums + at, load<f32>(sums + at) * load<f32>(weight + at));
      store<f32>(dots + at, load<f32>(dots + at) * load<f32>(weight + at));
    }
    spread(sums, c, width, <f32>(pixels * width));
    spread(dots, c, width, <f32>(pixels * width));
    for (let p: i32 = 0; p < pixels; ++p) {
      const row = image + (<usize>(p * c) << 2);
      for (let j: i32 = 0; j < c; j += 4) {
        const at = <usize>j << 2;
        const left = c - j;
        const inverse = loadUpTo4(inverses + at, left);
        const hat = f32x4.mul(f32x4.sub(loadUpTo4(x + row + at, left), loadUpTo4(means + at, left)), inverse);
        const through = f32x4.mul(loadUpTo4(dy + row + at, left), loadUpTo4(weight + at, left));
        storeUpTo4(dx + row + at, f32x4.mul(inverse, f32x4.sub(f32x4.sub(through, loadUpTo4(sums + at, left)), f32x4.mul(hat, loadUpTo4(dots + at, left)))), left);
      }
    }
  }
}

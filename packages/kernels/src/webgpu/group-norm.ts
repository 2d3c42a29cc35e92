import { Bindings } from './bindings.js';
import type { Call, Kernel } from './call.js';
import { type Gpu, spread } from './gpu.js';
import { totalOf } from './wgsl.js';

interface Shape {
  samples: number;
  pixels: number;
  channels: number;
  groups: number;
}

/** Values of a group that a workgroup looks at; slices at most. */
const [SLICE, MOST_SLICES] = [8192, 64];

function shapeOf(call: Call): Shape {
  const [samples, h, w, channels] = call.shape('x') as [number, number, number, number];
  return { samples, pixels: h * w, channels, groups: call.number('groups') };
}

/** Mean and reciprocal deviation of each sample's groups, `[N, G, 2]`: of slices, then of all, where groups are large. */
function groupStatistics(gpu: Gpu, x: GPUBuffer, { samples, pixels, channels, groups }: Shape, epsilon: number): GPUBuffer {
  const each = channels / groups;
  const slices = Math.min(MOST_SLICES, Math.ceil((pixels * each) / SLICE));
  const slice = Math.ceil(pixels / slices);
  const result = gpu.scratch(samples * groups * 2);
  const partial = slices === 1 ? result : gpu.scratch(samples * groups * slices * 2);
  const bindings = new Bindings();
  const from = bindings.read(x);
  const to = bindings.write(partial);
  gpu.pipelines.run({
    name: 'groupStatistics',
    variant: `${slices === 1}`,
    bindings,
    numbers: { pixels, channels, each, slice },
    reals: { epsilon },
    workgroup: 128,
    groups: [slices, groups, samples],
    code: () => ({
      declarations: totalOf('f32', 128),
      main: `
  let first = group.x * u.slice;
  let count = (min(u.pixels, first + u.slice) - min(u.pixels, first)) * u.each;
  let start = (group.z * u.pixels + first) * u.channels + group.y * u.each;
  var sum = 0.0;
  for (var i = thread; i < count; i += 128u) { sum += ${from}[start + i / u.each * u.channels + i % u.each]; }
  let mean = total(sum, thread) / max(f32(count), 1.0);
  var squares = 0.0;
  for (var i = thread; i < count; i += 128u) { let d = ${from}[start + i / u.each * u.channels + i % u.each] - mean; squares += d * d; }
  let spread = total(squares, thread);
  if (thread == 0u) {
    let at = 2u * ((group.z * groups.y + group.y) * groups.x + group.x);
    ${to}[at] = mean;
    ${to}[at + 1u] = ${slices === 1 ? 'inverseSqrt(spread / f32(count) + f.epsilon)' : 'spread'};
  }`,
    }),
  });
  if (slices === 1) return result;
  const joining = new Bindings();
  const parts = joining.read(partial);
  const all = joining.write(result);
  const count = samples * groups;
  gpu.pipelines.run({
    name: 'joinStatistics',
    bindings: joining,
    numbers: { count, slices, slice, pixels, each },
    reals: { epsilon },
    workgroup: 64,
    groups: spread(Math.ceil(count / 64)),
    code: () => ({
      // two sets of values: their squares add, and so does the distance of their means (Chan et al. 1979)
      main: `
  let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i >= u.count) { return; }
  var n = 0.0; var mean = 0.0; var squares = 0.0;
  for (var s = 0u; s < u.slices; s++) {
    let first = min(u.pixels, s * u.slice);
    let more = f32((min(u.pixels, first + u.slice) - first) * u.each);
    let at = 2u * (i * u.slices + s);
    let d = ${parts}[at] - mean;
    let sum = n + more;
    if (more > 0.0) {
      mean += d * more / sum;
      squares += ${parts}[at + 1u] + d * d * n * more / sum;
      n = sum;
    }
  }
  ${all}[2u * i] = mean;
  ${all}[2u * i + 1u] = inverseSqrt(squares / n + f.epsilon);`,
    }),
  });
  gpu.free(partial);
  return result;
}

/** `c`, the channel of element `i`, and `x̂` of it. */
const normed = (x: string, stats: string): string => `
  let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i >= u.count) { return; }
  let c = i % u.channels;
  let sample = i / (u.pixels * u.channels);
  let at = 2u * (sample * u.groups + c / u.each);
  let rstd = ${stats}[at + 1u];
  let normed = (${x}[i] - ${stats}[at]) * rstd;`;

export const groupNorm: Kernel = (call) => {
  const { gpu } = call;
  const shape = shapeOf(call);
  const out = call.output(call.shape('x'));
  const count = call.size('x');
  if (count === 0) return out.info;
  const statistics = groupStatistics(gpu, call.buffer('x'), shape, call.number('epsilon'));
  const bindings = new Bindings();
  const [x, weight, bias, stats] = [call.buffer('x'), call.buffer('weight'), call.buffer('bias'), statistics].map((buffer) => bindings.read(buffer)) as [string, string, string, string];
  const y = bindings.write(out.buffer);
  gpu.pipelines.run({
    name: 'groupNorm',
    bindings,
    numbers: { count, pixels: shape.pixels, channels: shape.channels, groups: shape.groups, each: shape.channels / shape.groups },
    workgroup: 64,
    groups: spread(Math.ceil(count / 64)),
    code: () => ({ main: `${normed(x, stats)}\n ${y}[i] = normed * ${weight}[c] + ${bias}[c];` }),
  });
  gpu.free(statistics);
  return out.info;
};

/** From sums over pixels of dy and dy · x̂ for each channel follow all three gradients. */
export const groupNormGradient: Kernel = (call) => {
  const { gpu } = call;
  const shape = shapeOf(call);
  const { samples, pixels, channels, groups } = shape;
  const [dx, dWeight, dBias] = [call.output(call.shape('x')), call.output([channels]), call.output([channels])];
  const count = call.size('x');
  if (count === 0) return [dx.info, dWeight.info, dBias.info];
  const statistics = groupStatistics(gpu, call.buffer('x'), shape, call.number('epsilon'));
  const [slices, each] = [Math.min(MOST_SLICES, Math.ceil(pixels / 256)), channels / groups];
  const slice = Math.ceil(pixels / slices);
  const [partial, sums] = [gpu.scratch(samples * slices * channels * 2), gpu.scratch(samples * channels * 2)];

  const first = new Bindings();
  const [dy, x, stats] = [call.buffer('dy'), call.buffer('x'), statistics].map((buffer) => first.read(buffer)) as [string, string, string];
  const toPartial = first.write(partial);
  gpu.pipelines.run({
    name: 'groupNormChannels',
    bindings: first,
    numbers: { pixels, channels, groups, each, slice },
    workgroup: 256,
    groups: [Math.ceil(channels / 64), slices, samples],
    code: () => ({
      declarations: 'var<workgroup> partial : array<vec2f, 256>;',
      main: `
  let c = group.x * 64u + thread % 64u;
  var sum = vec2f();
  if (c < u.channels) {
    let at = 2u * (group.z * u.groups + c / u.each);
    let end = min(u.pixels, (group.y + 1u) * u.slice);
    for (var p = group.y * u.slice + thread / 64u; p < end; p += 4u) {
      let i = (group.z * u.pixels + p) * u.channels + c;
      sum += ${dy}[i] * vec2f(1.0, (${x}[i] - ${stats}[at]) * ${stats}[at + 1u]);
    }
  }
  partial[thread] = sum;
  workgroupBarrier();
  if (thread < 64u && c < u.channels) {
    let all = partial[thread] + partial[thread + 64u] + partial[thread + 128u] + partial[thread + 192u];
    let to = 2u * ((group.z * groups.y + group.y) * u.channels + c);
    ${toPartial}[to] = all.x;
    ${toPartial}[to + 1u] = all.y;
  }`,
    }),
  });

  const second = new Bindings();
  const parts = second.read(partial);
  const [toSums, toWeight, toBias] = [second.write(sums), second.write(dWeight.buffer), second.write(dBias.buffer)];
  gpu.pipelines.run({
    name: 'groupNormSums',
    bindings: second,
    numbers: { samples, slices, channels },
    workgroup: 64,
    groups: [Math.ceil(channels / 64), 1, 1],
    code: () => ({
      main: `
  let c = group.x * 64u + thread;
  if (c >= u.channels) { return; }
  var all = vec2f();
  for (var n = 0u; n < u.samples; n++) {
    var sum = vec2f();
    for (var s = 0u; s < u.slices; s++) { let at = 2u * ((n * u.slices + s) * u.channels + c); sum += vec2f(${parts}[at], ${parts}[at + 1u]); }
    ${toSums}[2u * (n * u.channels + c)] = sum.x;
    ${toSums}[2u * (n * u.channels + c) + 1u] = sum.y;
    all += sum;
  }
  ${toBias}[c] = all.x;
  ${toWeight}[c] = all.y;`,
    }),
  });

  const third = new Bindings();
  const [dy3, x3, weight, stats3, sums3] = [call.buffer('dy'), call.buffer('x'), call.buffer('weight'), statistics, sums].map((buffer) => third.read(buffer)) as [string, string, string, string, string];
  const toX = third.write(dx.buffer);
  gpu.pipelines.run({
    name: 'groupNormGrad',
    bindings: third,
    numbers: { count, pixels, channels, groups, each },
    workgroup: 64,
    groups: spread(Math.ceil(count / 64)),
    code: () => ({
      main: `${normed(x3, stats3)}
  var means = vec2f();
  let start = c / u.each * u.each;
  for (var k = start; k < start + u.each; k++) { let s = 2u * (sample * u.channels + k); means += ${weight}[k] * vec2f(${sums3}[s], ${sums3}[s + 1u]); }
  means /= f32(u.pixels * u.each);
  ${toX}[i] = rstd * (${dy3}[i] * ${weight}[c] - means.x - normed * means.y);`,
    }),
  });
  for (const buffer of [statistics, partial, sums]) gpu.free(buffer);
  return [dx.info, dWeight.info, dBias.info];
};

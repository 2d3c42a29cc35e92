import { Bindings } from './bindings.js';
import { type Kernel, sizeOf } from './call.js';
import { spread } from './gpu.js';

/** Normals of a stream of Philox words, four a thread: a block of the generator, two pairs of Box and Muller. */
export const philoxNormal: Kernel = (call) => {
  const shape = call.list('shape');
  const [key0, key1] = call.list('key') as [number, number];
  const counter = call.number('counter');
  const count = sizeOf(shape);
  const blocks = Math.ceil(count / 4);
  const bindings = new Bindings();
  const out = call.output(shape);
  const to = bindings.write(out.buffer);
  call.gpu.pipelines.run({
    name: 'philoxNormal',
    bindings,
    numbers: { count, blocks, key0: key0 >>> 0, key1: key1 >>> 0, low: counter % 2 ** 32, high: Math.floor(counter / 2 ** 32) },
    workgroup: 64,
    groups: count === 0 ? [0, 0, 0] : spread(Math.ceil(blocks / 64)),
    code: () => ({
      declarations: philox,
      main: `
  let block = (group.x + group.y * groups.x) * 64u + thread;
  if (block >= u.blocks) { return; }
  let low = u.low + block;
  let words = philox(vec4u(low, u.high + select(0u, 1u, low < block), 0u, 0u), vec2u(u.key0, u.key1));
  let v = vec4f(pair(words.xy), pair(words.zw));
  for (var i = 0u; i < 4u; i++) { if (4u * block + i < u.count) { ${to}[4u * block + i] = v[i]; } }`,
    }),
  });
  return out.info;
};

/**
 * `pair` is √(−2 ln u) · (cos, sin)(2π v) for u = (w₀ + 1)·2⁻³², v = w₁·2⁻³². WGSL's own logarithm and cosine are too coarse:
 * −ln(1 − d) is 2·artanh(d / (2 − d)), from words whose distance to the end is exact, and quarter turns are taken off as
 * integers.
 */
const philox = `
fn upper(a : u32, b : u32) -> u32 {
  let middle = (a >> 16u) * (b & 0xffffu) + (((a & 0xffffu) * (b & 0xffffu)) >> 16u);
  let cross = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (cross >> 16u);
}
fn philox(start : vec4u, first : vec2u) -> vec4u {
  var c = start;
  var k = first;
  for (var round = 0u; round < 10u; round++) {
    c = vec4u(upper(0xcd9e8d57u, c.z) ^ c.y ^ k.x, 0xcd9e8d57u * c.z, upper(0xd2511f53u, c.x) ^ c.w ^ k.y, 0xd2511f53u * c.x);
    k += vec2u(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}
fn minusLogOfOneMinus(d : f32) -> f32 {
  let s = d / (2.0 - d);
  let z = s * s;
  return 2.0 * s * (1.0 + z * (0.33333333 + z * (0.2 + z * (0.14285714 + z * (0.11111111 + z * (0.09090909 + z * (0.07692308 + z * 0.06666667)))))));
}
fn pair(w : vec2u) -> vec2f {
  var minusLog : f32;
  if (w.x >= 0x80000000u) {
    minusLog = minusLogOfOneMinus(f32(0xffffffffu - w.x) * 2.3283064365386963e-10);
  } else {
    let parts = frexp(f32(w.x + 1u));
    minusLog = minusLogOfOneMinus(1.0 - parts.fract) + f32(32 - parts.exp) * 0.69314718;
  }
  let radius = sqrt(2.0 * minusLog);
  let quarter = (w.y + 0x20000000u) >> 30u;
  let r = f32(bitcast<i32>(w.y - (quarter << 30u))) * 1.4629180792671596e-9;
  let z = r * r;
  let s = r + r * z * ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1);
  let c = 1.0 - 0.5 * z + z * z * ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2);
  let turned = select(vec2f(c, s), vec2f(-s, c), (quarter & 1u) == 1u);
  return radius * select(turned, -turned, quarter >= 2u);
}`;

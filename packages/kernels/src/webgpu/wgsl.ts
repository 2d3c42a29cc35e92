/** Activations and their derivatives, of four values each. GELU is x·σ(2u): its tanh would lose bits, as WGSL's does. */
export const activations = `
fn sigmoid4(x : vec4f) -> vec4f { return 1.0 / (1.0 + exp(min(-x, vec4f(80.0)))); }
fn silu4(x : vec4f) -> vec4f { return x * sigmoid4(x); }
fn siluGrad4(x : vec4f) -> vec4f { let s = sigmoid4(x); return s * (1.0 + x * (1.0 - s)); }
fn gelu4(x : vec4f) -> vec4f { return x * sigmoid4(1.5957691216 * (x + 0.044715 * x * x * x)); }
fn geluGrad4(x : vec4f) -> vec4f {
  let s = sigmoid4(1.5957691216 * (x + 0.044715 * x * x * x));
  return s + x * s * (1.0 - s) * 1.5957691216 * (1.0 + 0.134145 * x * x);
}`;

/** `total(v, thread)`: the sum over all threads of a workgroup, in each of them. Ends in a barrier. */
export function totalOf(type: 'f32' | 'vec2f', threads: number): string {
  return `
var<workgroup> lanes : array<${type}, ${threads}>;
fn total(v : ${type}, thread : u32) -> ${type} {
  lanes[thread] = v;
  workgroupBarrier();
  for (var half = ${threads / 2}u; half > 0u; half /= 2u) {
    if (thread < half) { lanes[thread] += lanes[thread + half]; }
    workgroupBarrier();
  }
  let sum = lanes[0];
  workgroupBarrier();
  return sum;
}`;
}

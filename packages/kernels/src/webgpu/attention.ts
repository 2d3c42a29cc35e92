import type * as tf from '@tensorflow/tfjs-core';
import { type HeadLayout, LOWEST, PART, THREADS, TILE, accumulate, aligned, blocksFor, headNumbers, keepWeights, loader, memory, position, products, rowwise, store, sums } from './attention-code.js';
import { attentionGradients } from './attention-gradient.js';
import { Bindings } from './bindings.js';
import type { Kernel } from './call.js';
import type { Gpu } from './gpu.js';

/** A tensor of heads: what holds it, and where. */
export interface Heads {
  buffer: GPUBuffer;
  layout: HeadLayout;
}

/** Sizes of an attention. */
export interface AttentionShape {
  samples: number;
  heads: number;
  /** Queries. */
  rows: number;
  /** Keys. */
  columns: number;
  d: number;
  scale: number;
}

const separate = (heads: number, rows: number, d: number): HeadLayout => ({ offset: 0, sample: heads * rows * d, head: rows * d, row: d });
const packed = (rows: number, d: number, width: number, offset: number): HeadLayout => ({ offset, sample: rows * width, head: d, row: width });

export const attention: Kernel = (call) => {
  const [samples, heads, rows, d] = call.shape('q') as [number, number, number, number];
  const columns = call.shape('k')[2]!;
  const out = call.output([samples, heads, rows, d]);
  const of = (buffer: GPUBuffer, length: number): Heads => ({ buffer, layout: separate(heads, length, d) });
  forward(call.gpu, { samples, heads, rows, columns, d, scale: call.number('scale') }, of(call.buffer('q'), rows), of(call.buffer('k'), columns), of(call.buffer('v'), columns), of(out.buffer, rows));
  return out.info;
};

export const attentionGradient: Kernel = (call) => {
  const [samples, heads, rows, d] = call.shape('q') as [number, number, number, number];
  const columns = call.shape('k')[2]!;
  const [dq, dk, dv] = [call.output(call.shape('q')), call.output(call.shape('k')), call.output(call.shape('v'))];
  const of = (buffer: GPUBuffer, length: number): Heads => ({ buffer, layout: separate(heads, length, d) });
  attentionGradients(call.gpu, { samples, heads, rows, columns, d, scale: call.number('scale') }, { dy: of(call.buffer('dy'), rows), q: of(call.buffer('q'), rows), k: of(call.buffer('k'), columns), v: of(call.buffer('v'), columns), dq: of(dq.buffer, rows), dk: of(dk.buffer, columns), dv: of(dv.buffer, columns) });
  return [dq.info, dk.info, dv.info];
};

function packedShape(qkv: tf.TensorInfo, heads: number): AttentionShape & { width: number } {
  const [samples, rows, triple] = qkv.shape as [number, number, number];
  const d = triple / 3 / heads;
  return { samples, heads, rows, columns: rows, d, scale: 1 / Math.sqrt(d), width: triple / 3 };
}

export const selfAttention: Kernel = (call) => {
  const shape = packedShape(call.info('qkv'), call.number('numHeads'));
  const { samples, rows, d, width } = shape;
  const qkv = call.buffer('qkv');
  const out = call.output([samples, rows, width]);
  const part = (i: number): Heads => ({ buffer: qkv, layout: packed(rows, d, 3 * width, i * width) });
  forward(call.gpu, shape, part(0), part(1), part(2), { buffer: out.buffer, layout: packed(rows, d, width, 0) });
  return out.info;
};

export const selfAttentionGradient: Kernel = (call) => {
  const shape = packedShape(call.info('qkv'), call.number('numHeads'));
  const { samples, rows, d, width } = shape;
  const [qkv, dy] = [call.buffer('qkv'), call.buffer('dy')];
  const out = call.output([samples, rows, 3 * width]);
  const part = (buffer: GPUBuffer, i: number): Heads => ({ buffer, layout: packed(rows, d, 3 * width, i * width) });
  attentionGradients(call.gpu, shape, { dy: { buffer: dy, layout: packed(rows, d, width, 0) }, q: part(qkv, 0), k: part(qkv, 1), v: part(qkv, 2), dq: part(out.buffer, 0), dk: part(out.buffer, 1), dv: part(out.buffer, 2) });
  return out.info;
};

/** softmax(scale · q kᵀ) v, 32 queries a workgroup; the sum of exponentials is kept relative to the largest so far (Milakov & Gimelshein 2018). */
function forward(gpu: Gpu, { samples, heads, rows, columns, d, scale }: AttentionShape, q: Heads, k: Heads, v: Heads, o: Heads): void {
  const bindings = new Bindings();
  const vec4 = aligned(d, [q.layout, k.layout, v.layout, o.layout]);
  const [qs, ks, vs] = [q, k, v].map(({ buffer }) => bindings.read(buffer, { vec4 })) as [string, string, string];
  const to = bindings.write(o.buffer, { vec4 });
  const blocks = blocksFor(d);
  const parts = Math.ceil(d / PART);
  gpu.pipelines.run({
    name: 'attention',
    variant: `${blocks}`,
    bindings,
    numbers: { d, parts, ...headNumbers({ letter: 'q', layout: q.layout, rows }), ...headNumbers({ letter: 'k', layout: k.layout, rows: columns }), ...headNumbers({ letter: 'v', layout: v.layout, rows: columns }), ...headNumbers({ letter: 'o', layout: o.layout, rows }) },
    reals: { scale },
    workgroup: THREADS,
    groups: [Math.ceil(rows / TILE) * parts, heads, samples],
    code: () => ({
      declarations: [memory, loader('q', qs), loader('k', ks), loader('v', vs), position('o'), products('scores', 'q', 'k'), rowwise('max')].join('\n'),
      main: `
  let head = group;
  let row0 = group.x / u.parts * 32u;
  let part = group.x % u.parts * ${PART}u;
  let tx = thread % 8u;
  let ty = thread / 8u;
  ${sums('o', blocks)}
  var most = vec4f(${LOWEST});
  var total = vec4f();
  for (var col0 = 0u; col0 < u.kRows; col0 += 32u) {
    var s = scores(head, row0, col0, thread) * f.scale;
    let column = vec4u(col0 + tx * 4u) + vec4u(0u, 1u, 2u, 3u);
    let there = column < vec4u(u.kRows);
    for (var r = 0u; r < 4u; r++) { s[r] = select(vec4f(${LOWEST}), s[r], there); }
    var largest = vec4f(${[0, 1, 2, 3].map((r) => `max(max(s[${r}].x, s[${r}].y), max(s[${r}].z, s[${r}].w))`).join(', ')});
    largest = max(most, rowwise_max(largest, thread));
    let shrink = exp(most - largest);
    most = largest;
    for (var r = 0u; r < 4u; r++) { s[r] = select(vec4f(), exp(s[r] - largest[r]), there); }
    ${keepWeights('s')}
    workgroupBarrier();
    total *= shrink;
    ${Array.from({ length: blocks }, (_, i) => `o${i} = mat4x4f(o${i}[0] * shrink.x, o${i}[1] * shrink.y, o${i}[2] * shrink.z, o${i}[3] * shrink.w);`).join(' ')}
    let count = min(32u, u.kRows - col0);
    for (var j = 0u; j < count; j++) { total += tile[j][ty]; }
    ${accumulate('o', 'v', blocks, 'count', 'col0')}
  }
  let factor = 1.0 / total;
  ${store('o', 'o', to, blocks, 'factor')}`,
    }),
  });
}

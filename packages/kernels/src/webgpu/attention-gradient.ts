import { type HeadLayout, LOWEST, PART, THREADS, TILE, accumulate, aligned, blocksFor, headNumbers, keepWeights, loader, memory, position, products, rowwise, store, sums } from './attention-code.js';
import type { AttentionShape, Heads } from './attention.js';
import { Bindings } from './bindings.js';
import type { Gpu } from './gpu.js';

/** What attention's gradients read and write. */
export type GradientHeads = Record<'dy' | 'q' | 'k' | 'v' | 'dq' | 'dk' | 'dv', Heads>;

/** Zeroes what lies beyond the last key. */
const there = 'let column = vec4u(col0 + tx * 4u) + vec4u(0u, 1u, 2u, 3u);\n    let there = column < vec4u(u.kRows);';

/**
 * Gradients of attention without its matrix of weights: scores are computed again, tile by tile, first for the queries,
 * whose rows' statistics are kept, then for the keys (Dao et al. 2022).
 */
export function attentionGradients(gpu: Gpu, shape: AttentionShape, heads: GradientHeads): void {
  const statistics = gpu.scratch(2 * shape.samples * shape.heads * shape.rows);
  byQueries(gpu, shape, heads, statistics);
  byKeys(gpu, shape, heads, statistics);
  gpu.free(statistics);
}

/** Numbers of all operands; a letter each. */
function numbersOf({ rows, columns, d }: AttentionShape, letters: Readonly<Record<string, HeadLayout>>): Record<string, number> {
  const numbers: Record<string, number> = { d, parts: Math.ceil(d / PART) };
  for (const [letter, layout] of Object.entries(letters)) Object.assign(numbers, headNumbers({ letter, layout, rows: 'kvab'.includes(letter) ? columns : rows }));
  return numbers;
}

/** dq = scale · Σⱼ dsⱼ kⱼ with ds = p ∘ (dy vᵀ − δ), and for each query ln Σ exp and δ = Σⱼ pⱼ (dy vᵀ)ⱼ. */
function byQueries(gpu: Gpu, shape: AttentionShape, { dy, q, k, v, dq }: GradientHeads, statistics: GPUBuffer): void {
  const bindings = new Bindings();
  const vec4 = aligned(shape.d, [dy, q, k, v, dq].map(({ layout }) => layout));
  const [gs, qs, ks, vs] = [dy, q, k, v].map(({ buffer }) => bindings.read(buffer, { vec4 })) as [string, string, string, string];
  const to = bindings.write(dq.buffer, { vec4 });
  const stats = bindings.write(statistics);
  const blocks = blocksFor(shape.d);
  const parts = Math.ceil(shape.d / PART);
  gpu.pipelines.run({
    name: 'attentionGradQueries',
    variant: `${blocks}`,
    bindings,
    numbers: numbersOf(shape, { g: dy.layout, q: q.layout, k: k.layout, v: v.layout, o: dq.layout }),
    reals: { scale: shape.scale },
    workgroup: THREADS,
    groups: [Math.ceil(shape.rows / TILE) * parts, shape.heads, shape.samples],
    code: () => ({
      declarations: [memory, loader('g', gs), loader('q', qs), loader('k', ks), loader('v', vs), position('o'), products('scores', 'q', 'k'), products('slopes', 'g', 'v'), rowwise('max'), rowwise('add')].join('\n'),
      main: `
  let head = group;
  let row0 = group.x / u.parts * 32u;
  let part = group.x % u.parts * ${PART}u;
  let tx = thread % 8u;
  let ty = thread / 8u;
  var most = vec4f(${LOWEST});
  var total = vec4f();
  var weighted = vec4f();
  for (var col0 = 0u; col0 < u.kRows; col0 += 32u) {
    var s = scores(head, row0, col0, thread) * f.scale;
    let slope = slopes(head, row0, col0, thread);
    ${there}
    for (var r = 0u; r < 4u; r++) { s[r] = select(vec4f(${LOWEST}), s[r], there); }
    var largest = vec4f(${[0, 1, 2, 3].map((r) => `max(max(s[${r}].x, s[${r}].y), max(s[${r}].z, s[${r}].w))`).join(', ')});
    largest = max(most, rowwise_max(largest, thread));
    let shrink = exp(most - largest);
    most = largest;
    total *= shrink;
    weighted *= shrink;
    for (var r = 0u; r < 4u; r++) {
      let p = select(vec4f(), exp(s[r] - largest[r]), there);
      total[r] += dot(p, vec4f(1.0));
      weighted[r] += dot(p, slope[r]);
    }
  }
  total = rowwise_add(total, thread);
  let delta = rowwise_add(weighted, thread) / total;
  let logs = most + log(total);
  if (tx == 0u && part == 0u) {
    for (var r = 0u; r < 4u; r++) {
      let row = row0 + ty * 4u + r;
      if (row < u.qRows) { let i = 2u * ((group.z * groups.y + group.y) * u.qRows + row); ${stats}[i] = logs[r]; ${stats}[i + 1u] = delta[r]; }
    }
  }
  ${sums('o', blocks)}
  for (var col0 = 0u; col0 < u.kRows; col0 += 32u) {
    var s = scores(head, row0, col0, thread) * f.scale;
    let slope = slopes(head, row0, col0, thread);
    ${there}
    for (var r = 0u; r < 4u; r++) { s[r] = select(vec4f(), exp(s[r] - logs[r]) * (slope[r] - delta[r]), there); }
    ${keepWeights('s')}
    workgroupBarrier();
    let count = min(32u, u.kRows - col0);
    ${accumulate('o', 'k', blocks, 'count', 'col0')}
  }
  let factor = vec4f(f.scale);
  ${store('o', 'o', to, blocks, 'factor')}`,
    }),
  });
}

/** dv = Σᵢ pᵢ dyᵢ and dk = scale · Σᵢ dsᵢ qᵢ over the queries i, 32 keys a workgroup. */
function byKeys(gpu: Gpu, shape: AttentionShape, { dy, q, k, v, dk, dv }: GradientHeads, statistics: GPUBuffer): void {
  const bindings = new Bindings();
  const vec4 = aligned(shape.d, [dy, q, k, v, dk, dv].map(({ layout }) => layout));
  const [gs, qs, ks, vs] = [dy, q, k, v].map(({ buffer }) => bindings.read(buffer, { vec4 })) as [string, string, string, string];
  const stats = bindings.read(statistics);
  const toKeys = bindings.write(dk.buffer, { vec4 });
  // gradients of a packed projection are in one buffer, which can be bound for writing once
  const toValues = dv.buffer === dk.buffer ? toKeys : bindings.write(dv.buffer, { vec4 });
  const blocks = blocksFor(shape.d);
  const parts = Math.ceil(shape.d / PART);
  gpu.pipelines.run({
    name: 'attentionGradKeys',
    variant: `${blocks}`,
    bindings,
    numbers: numbersOf(shape, { g: dy.layout, q: q.layout, k: k.layout, v: v.layout, a: dk.layout, b: dv.layout }),
    reals: { scale: shape.scale },
    workgroup: THREADS,
    groups: [Math.ceil(shape.columns / TILE) * parts, shape.heads, shape.samples],
    code: () => ({
      declarations: [memory, loader('g', gs), loader('q', qs), loader('k', ks), loader('v', vs), position('a'), position('b'), products('scores', 'k', 'q'), products('slopes', 'v', 'g')].join('\n'),
      main: `
  let head = group;
  let row0 = group.x / u.parts * 32u;
  let part = group.x % u.parts * ${PART}u;
  let tx = thread % 8u;
  let ty = thread / 8u;
  ${sums('a', blocks)}
  ${sums('b', blocks)}
  for (var col0 = 0u; col0 < u.qRows; col0 += 32u) {
    var s = scores(head, row0, col0, thread) * f.scale;
    var slope = slopes(head, row0, col0, thread);
    var logs = vec4f();
    var delta = vec4f();
    var there = vec4f();
    for (var c = 0u; c < 4u; c++) {
      let i = col0 + tx * 4u + c;
      if (i < u.qRows) {
        let at = 2u * ((group.z * groups.y + group.y) * u.qRows + i);
        logs[c] = ${stats}[at];
        delta[c] = ${stats}[at + 1u];
        there[c] = 1.0;
      }
    }
    for (var r = 0u; r < 4u; r++) {
      s[r] = select(vec4f(), exp(s[r] - logs), there > vec4f());
      slope[r] = s[r] * (slope[r] - delta);
    }
    ${keepWeights('s')}
    workgroupBarrier();
    let count = min(32u, u.qRows - col0);
    ${accumulate('b', 'g', blocks, 'count', 'col0')}
    ${keepWeights('slope')}
    workgroupBarrier();
    ${accumulate('a', 'q', blocks, 'count', 'col0')}
  }
  let one = vec4f(1.0);
  let factor = vec4f(f.scale);
  ${store('b', 'b', toValues, blocks, 'one')}
  ${store('a', 'a', toKeys, blocks, 'factor')}`,
    }),
  });
}

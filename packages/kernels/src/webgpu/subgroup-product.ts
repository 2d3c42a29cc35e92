import type { ProductForm } from './product-form.js';
import { DEPTH, loadBlock } from './tiled-product.js';
import { activations } from './wgsl.js';

/** Rows and columns of a workgroup's tile. */
const [ROWS, COLUMNS] = [64, 128];

/**
 * Tiles of which only B lies in workgroup memory. The 16 threads of four rows need the same 4 × 16 values of A: each that
 * is in the same subgroup loads a part of them, and they read them from each other.
 * @param least threads that a subgroup has, a power of two from 4 on; it may have more
 */
export function tiledBySubgroups(least: number): ProductForm {
  const sharers = Math.min(16, least);
  // vectors of A: along rows, four to each, where that is how they lie, else one for each k
  const vectors = Array.from({ length: 16 }, (_, i) => i);
  const own = vectors.filter((i) => i % sharers === 0);
  const shared = (i: number): string => `subgroupShuffle(a${Math.floor(i / sharers)}, first + ${i % sharers}u)`;
  const add = (row: number, factor: string, k: number): string => `s${row}_0 += ${factor} * tileB[${k}][tx]; s${row}_1 += ${factor} * tileB[${k}][tx + 16u];`;
  const four = [0, 1, 2, 3];
  return {
    name: 'tiled 4×8 by subgroups',
    tile: [ROWS, COLUMNS],
    threads: 256,
    directives: 'enable subgroups;',
    subgroups: true,
    memory: `${activations}
var<workgroup> tileB : array<array<vec4f, ${COLUMNS / 4}>, ${DEPTH}>;`,
    takes: ({ rowSums }) => rowSums === undefined,
    code: ({ job, prefix: p, code }) => `${code()}
fn job_${p}(tile : u32, batch : u32, thread : u32, subgroup : u32, lane : u32, lanes : u32) {
  let row = tile / u.${p}Columns * ${ROWS}u + thread / 16u * 4u;
  let col0 = tile % u.${p}Columns * ${COLUMNS}u;
  let tx = thread % 16u;
  let part = lane % ${sharers}u;
  let first = lane - part;
  ${four.map((r) => `var s${r}_0 = vec4f(); var s${r}_1 = vec4f();`).join(' ')}
  for (var k0 = 0u; k0 < u.${p}K; k0 += ${DEPTH}u) {
    if (thread < ${COLUMNS}u) {
      ${loadBlock(job.b.summedInside, `${p}B`, 'thread', 'col0', 'tileB', COLUMNS)}
    }
    ${own.map((i, at) => `let a${at} = ${p}A(batch, ${job.a.summedInside ? `row + (part + ${i}u) / 4u, k0 + (part + ${i}u) % 4u * 4u` : `k0 + part + ${i}u, row`});`).join('\n    ')}
    workgroupBarrier();
    ${vectors.map((i) => `{ let a = ${shared(i)}; ${four.map((j) => (job.a.summedInside ? add(Math.floor(i / 4), `a[${j}]`, (i % 4) * 4 + j) : add(j, `a[${j}]`, i))).join(' ')} }`).join('\n    ')}
    workgroupBarrier();
  }
  ${[0, 1].map((j) => `{
    let col = col0 + tx * 4u + ${64 * j}u;
    if (col < u.${p}N) { ${four.map((r) => `if (row + ${r}u < u.${p}M) { finish_${p}(batch, row + ${r}u, col, s${r}_${j}); }`).join(' ')} }
  }`).join('\n  ')}
}`,
  };
}

import type { ProductForm } from './product-form.js';
import { toHalf } from './product-form.js';
import { activations } from './wgsl.js';

/** What a tile sums at a time: four blocks of {@link loadBlock}. (Software adapters take a second to compile what zeroes 16 KiB.) */
export const DEPTH = 16;

const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/**
 * Tiles in workgroup memory, 16 × 16 threads; with `half` in float16, which halves what is read from there. Products and
 * sums are float32.
 * @param rows of the result, and columns, that a thread computes: more of them read less and take more registers
 */
export function tiled(rows: 4 | 8, columns: 4 | 8, { half = false }: { half?: boolean } = {}): ProductForm {
  const tile = [16 * rows, 16 * columns] as const;
  const type = half ? 'vec4h' : 'vec4f';
  // a thread's rows and columns lie in fours, 64 apart
  const [down, across] = [upTo(rows / 4), upTo(columns / 4)];
  const operand = (name: string, i: number, at: string): string => `let ${name}${i} = vec4f(tile${name.toUpperCase()}[k][${at} + ${16 * i}u]);`;
  return {
    name: `tiled ${rows}×${columns}${half ? ' in float16' : ''}`,
    tile,
    threads: 256,
    ...(half ? { directives: 'enable f16;' } : {}),
    half,
    memory: `${activations}
var<workgroup> tileA : array<array<${type}, ${tile[0] / 4}>, ${DEPTH}>;
var<workgroup> tileB : array<array<${type}, ${tile[1] / 4}>, ${DEPTH}>;`,
    takes: ({ b, rowSums }) => !half || (b.half === true && rowSums === undefined),
    code: ({ job, prefix: p, sums, code }) => `${code()}
fn job_${p}(tile : u32, batch : u32, thread : u32) {
  let row0 = tile / u.${p}Columns * ${tile[0]}u;
  let col0 = tile % u.${p}Columns * ${tile[1]}u;
  let tx = thread % 16u;
  let ty = thread / 16u;
  ${upTo(rows).flatMap((r) => across.map((j) => `var s${r}_${j} = vec4f();`)).join(' ')}
  ${sums === undefined ? '' : down.map((i) => `var rowSum${i} = vec4f();`).join(' ')}
  for (var k0 = 0u; k0 < u.${p}K; k0 += ${DEPTH}u) {
    // the first threads load four by four values of A, the next of B
    if (thread < ${tile[0]}u) {
      ${loadBlock(job.a.summedInside, `${p}A`, 'thread', 'row0', 'tileA', tile[0], half)}
    } else if (thread < ${tile[0] + tile[1]}u) {
      ${loadBlock(job.b.summedInside, `${p}B`, `(thread - ${tile[0]}u)`, 'col0', 'tileB', tile[1], half)}
    }
    workgroupBarrier();
    for (var k = 0u; k < ${DEPTH}u; k++) {
      ${down.map((i) => operand('a', i, 'ty')).join(' ')}
      ${across.map((j) => operand('b', j, 'tx')).join(' ')}
      ${upTo(rows).map((r) => across.map((j) => `s${r}_${j} += a${Math.floor(r / 4)}[${r % 4}] * b${j};`).join(' ')).join('\n      ')}
    }
    ${sums === undefined ? '' : `if (col0 == 0u && tx == 0u) { for (var k = 0u; k < ${DEPTH}u; k++) { ${down.map((i) => `rowSum${i} += tileA[k][ty + ${16 * i}u];`).join(' ')} } }`}
    workgroupBarrier();
  }
  ${down.map((i) => `{
    let row = row0 + ty * 4u + ${64 * i}u;
    ${sums === undefined ? '' : `if (col0 == 0u && tx == 0u && row < u.${p}M) { put_${sums}(row, u.${p}M - row, rowSum${i}); }`}
    ${across.map((j) => `{
      let col = col0 + tx * 4u + ${64 * j}u;
      if (col < u.${p}N) { ${[0, 1, 2, 3].map((r) => `if (row + ${r}u < u.${p}M) { finish_${p}(batch, row + ${r}u, col, s${4 * i + r}_${j}); }`).join(' ')} }
    }`).join('\n    ')}
  }`).join('\n  ')}
}`,
  };
}

/** Four by four values into a tile, whose vectors lie along the axis that stays. */
export function loadBlock(summedInside: boolean, load: string, thread: string, start: string, tile: string, size: number, half = false): string {
  const four = [0, 1, 2, 3];
  const stored = half ? toHalf : (vector: string) => vector;
  if (!summedInside) {
    return `let o = ${thread} % ${size / 4}u;
      let kb = ${thread} / ${size / 4}u * 4u;
      ${four.map((j) => `${tile}[kb + ${j}u][o] = ${stored(`${load}(batch, k0 + kb + ${j}u, ${start} + o * 4u)`)};`).join('\n      ')}`;
  }
  return `let kb = ${thread} % ${DEPTH / 4}u * 4u;
      let o = ${thread} / ${DEPTH / 4}u;
      ${four.map((r) => `let r${r} = ${load}(batch, ${start} + o * 4u + ${r}u, k0 + kb);`).join('\n      ')}
      ${four.map((j) => `${tile}[kb + ${j}u][o] = ${stored(`vec4f(r0[${j}], r1[${j}], r2[${j}], r3[${j}])`)};`).join('\n      ')}`;
}

// WGSL that the attention kernels share: tiles of scores, 32 rows by 32 columns, that never leave the workgroup.

/** Rows of a tile, and columns; threads, each with four by four scores. */
export const TILE = 32;
export const THREADS = 64;
/** Columns of a result that a workgroup computes; wider heads are computed in parts. */
export const PART = 128;
/** What is never the largest score. */
export const LOWEST = '-3.0e38';

/** Where a tensor `[N, h, T, d]` has its rows, inside of whatever buffer: strides of sample, head and row. */
export interface HeadLayout {
  offset: number;
  sample: number;
  head: number;
  row: number;
}

/** Names and numbers of an operand in a shader. */
export interface HeadOperand {
  letter: string;
  layout: HeadLayout;
  rows: number;
}

export function headNumbers({ letter, layout, rows }: HeadOperand): Record<string, number> {
  return { [`${letter}Offset`]: layout.offset, [`${letter}Sample`]: layout.sample, [`${letter}Head`]: layout.head, [`${letter}Row`]: layout.row, [`${letter}Rows`]: rows };
}

/** Whether four values at a time are neighbours in memory that begin at a multiple of four. */
export function aligned(d: number, layouts: readonly HeadLayout[]): boolean {
  return d % 4 === 0 && layouts.every(({ offset, sample, head, row }) => [offset, sample, head, row].every((n) => n % 4 === 0));
}

/** `at_<letter>(row, c)`: index of a value of this workgroup's sample and head. */
export const position = (letter: string): string => `
fn at_${letter}(head : vec3u, row : u32, c : u32) -> u32 { return u.${letter}Offset + head.z * u.${letter}Sample + head.y * u.${letter}Head + row * u.${letter}Row + c; }`;

/** `load_<letter>(head, row, c)`: four values, zeros beyond the end. */
export const loader = (letter: string, buffer: string): string => `${position(letter)}
fn load_${letter}(head : vec3u, row : u32, c : u32) -> vec4f {
  if (row >= u.${letter}Rows || c >= u.d) { return vec4f(); }
  return get_${buffer}(at_${letter}(head, row, c), u.d - c);
}`;

/** `tile` is both operands of the products, 16 rows each, and then `weights`: by column, four rows together. */
export const memory = `
var<workgroup> tile : array<array<vec4f, 8>, 32>;
var<workgroup> partial : array<array<f32, 8>, 32>;`;

/**
 * `<name>(head, row0, col0, thread) -> mat4x4f`: products of 32 rows of one operand with 32 rows of another; column r of
 * the result has row r of this thread against its four columns. Ends in a barrier.
 */
export const products = (name: string, rows: string, columns: string): string => `
fn ${name}(head : vec3u, row0 : u32, col0 : u32, thread : u32) -> mat4x4f {
  let tx = thread % 8u;
  let ty = thread / 8u;
  // half of the threads turn four by four values of the one operand, the others of the other
  let x = thread % 4u * 4u;
  let y = thread % 32u / 4u;
  var s0 = vec4f(); var s1 = vec4f(); var s2 = vec4f(); var s3 = vec4f();
  for (var c0 = 0u; c0 < u.d; c0 += 16u) {
    var block : mat4x4f;
    if (thread < 32u) {
      block = mat4x4f(${[0, 1, 2, 3].map((r) => `load_${rows}(head, row0 + y * 4u + ${r}u, c0 + x)`).join(', ')});
    } else {
      block = mat4x4f(${[0, 1, 2, 3].map((r) => `load_${columns}(head, col0 + y * 4u + ${r}u, c0 + x)`).join(', ')});
    }
    block = transpose(block);
    let to = thread / 32u * 16u + x;
    tile[to][y] = block[0]; tile[to + 1u][y] = block[1]; tile[to + 2u][y] = block[2]; tile[to + 3u][y] = block[3];
    workgroupBarrier();
    let depth = min(16u, u.d - c0);
    for (var k = 0u; k < depth; k++) {
      let a = tile[k][ty];
      let b = tile[16u + k][tx];
      s0 += a.x * b; s1 += a.y * b; s2 += a.z * b; s3 += a.w * b;
    }
    workgroupBarrier();
  }
  return mat4x4f(s0, s1, s2, s3);
}`;

/** `rowwise_<op>(v, thread)`: for the four rows of a thread, `op` over what all threads of the rows have. Ends in a barrier. */
export const rowwise = (op: 'max' | 'add'): string => `
fn rowwise_${op}(v : vec4f, thread : u32) -> vec4f {
  let tx = thread % 8u;
  let ty = thread / 8u;
  ${[0, 1, 2, 3].map((r) => `partial[ty * 4u + ${r}u][tx] = v[${r}];`).join(' ')}
  workgroupBarrier();
  var all = vec4f(${[0, 1, 2, 3].map((r) => `partial[ty * 4u + ${r}u][0]`).join(', ')});
  for (var i = 1u; i < 8u; i++) {
    let next = vec4f(${[0, 1, 2, 3].map((r) => `partial[ty * 4u + ${r}u][i]`).join(', ')});
    all = ${op === 'max' ? 'max(all, next)' : 'all + next'};
  }
  workgroupBarrier();
  return all;
}`;

/** Puts a thread's scores into the tile. */
export const keepWeights = (scores: string): string => [0, 1, 2, 3].map((c) => `tile[tx * 4u + ${c}u][ty] = vec4f(${[0, 1, 2, 3].map((r) => `${scores}[${r}][${c}]`).join(', ')});`).join(' ');

/** Blocks of four columns that a thread has of a part's width. */
export const blocksFor = (d: number): number => Math.ceil(Math.min(d, PART) / 32);

/** Sums of a thread: four rows for each of its blocks. */
export const sums = (name: string, blocks: number): string => Array.from({ length: blocks }, (_, i) => `var ${name}${i} = mat4x4f();`).join(' ');

/** Adds the tile's weights times rows of an operand to the sums. */
export const accumulate = (name: string, operand: string, blocks: number, count: string, start: string): string => `
  for (var j = 0u; j < ${count}; j++) {
    let w = tile[j][ty];
    ${Array.from({ length: blocks }, (_, i) => `{ let v = load_${operand}(head, ${start} + j, part + (tx + ${8 * i}u) * 4u); ${name}${i} += mat4x4f(w.x * v, w.y * v, w.z * v, w.w * v); }`).join('\n    ')}
  }
  workgroupBarrier();`;

/** Writes the sums, each row times its factor. */
export const store = (name: string, operand: string, buffer: string, blocks: number, factor: string): string =>
  Array.from(
    { length: blocks },
    (_, i) => `
  { let c = part + (tx + ${8 * i}u) * 4u;
    if (c < min(u.d, part + ${PART}u)) {
      ${[0, 1, 2, 3].map((r) => `if (row0 + ty * 4u + ${r}u < u.${operand}Rows) { put_${buffer}(at_${operand}(head, row0 + ty * 4u + ${r}u, c), u.d - c, ${name}${i}[${r}] * ${factor}[${r}]); }`).join('\n      ')}
    } }`,
  ).join('');

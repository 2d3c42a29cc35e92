// WGSL of matrix products C[m, n] = Σₖ A(m, k) · B(k, n): what is common to all forms of them.
import type { Bindings } from './bindings.js';
import type { Gpu, RowView } from './gpu.js';
import type { Operand } from './operands.js';

/** What happens to a product before it is written. */
export type Step =
  | { kind: 'gelu' | 'silu' }
  /** Times the derivative at x. */
  | { kind: 'geluGrad' | 'siluGrad' | 'add'; x: () => GPUBuffer }
  /** x + gate · product, gate one row for every `rows` rows. */
  | { kind: 'gate'; x: () => GPUBuffer; gate: () => RowView; rows: number };

/** One product of a dispatch. */
export interface Job {
  m: number;
  n: number;
  k: number;
  batch: number;
  a: Operand;
  b: Operand;
  bias?: GPUBuffer | undefined;
  steps: readonly Step[];
  /** Where to write what there is after so many steps. */
  outputs: readonly { after: number; buffer: GPUBuffer }[];
  /** Where to write Σₖ A(m, k). */
  rowSums?: GPUBuffer | undefined;
}

/** A {@link Job} in a shader. */
export interface BoundJob {
  job: Job;
  /** Begins its names: `<prefix>A(batch, outer, inner)`, `<prefix>B(…)`, the numbers `u.<prefix>M`, `N` and `K`, `finish_<prefix>`. */
  prefix: string;
  variant: string;
  numbers: Record<string, number>;
  /** Name of the array for row sums. */
  sums: string | undefined;
  /** Code of both operands, and `finish_<prefix>(batch, row, col, value)` for four neighbours in a row, the first of which exists. */
  code(): string;
}

export function bindJob(gpu: Gpu, job: Job, bindings: Bindings, p: string): BoundJob {
  const { m, n, k, steps, outputs, bias, rowSums } = job;
  const a = job.a.bind(gpu, bindings, `${p}A`);
  const b = job.b.bind(gpu, bindings, `${p}B`);
  const vec4 = n % 4 === 0;
  const biasName = bias && bindings.read(bias, { vec4 });
  const finish: string[] = biasName === undefined ? [] : [`v += get_${biasName}(col, left);`];
  const numbers: Record<string, number> = { ...a.numbers, ...b.numbers, [`${p}M`]: m, [`${p}N`]: n, [`${p}K`]: k };
  const write = (after: number): void => {
    for (const output of outputs) if (output.after === after) finish.push(`put_${bindings.write(output.buffer, { vec4 })}(at, left, v);`);
  };
  write(0);
  for (const [i, step] of steps.entries()) {
    if (!('x' in step)) finish.push(`v = ${step.kind}4(v);`);
    else {
      const x = `get_${bindings.read(step.x(), { vec4 })}(at, left)`;
      if (step.kind === 'add') finish.push(`v += ${x};`);
      else if (step.kind === 'gate') {
        const { buffer, offset, stride } = step.gate();
        const gate = bindings.read(buffer, { vec4: vec4 && offset % 4 === 0 && stride % 4 === 0 });
        Object.assign(numbers, { [`${p}G${i}Rows`]: step.rows, [`${p}G${i}Offset`]: offset, [`${p}G${i}Stride`]: stride });
        finish.push(`v = ${x} + get_${gate}(u.${p}G${i}Offset + row / u.${p}G${i}Rows * u.${p}G${i}Stride + col, left) * v;`);
      } else finish.push(`v *= ${step.kind}4(${x});`);
    }
    write(i + 1);
  }
  const sums = rowSums && bindings.write(rowSums);
  return {
    job,
    prefix: p,
    variant: [a.variant, b.variant, ...finish, sums ?? ''].join(';'),
    numbers,
    sums,
    code: () => `${a.code()}${b.code()}
fn finish_${p}(batch : u32, row : u32, col : u32, value : vec4f) {
  var v = value;
  let left = u.${p}N - col;
  let at = (batch * u.${p}M + row) * u.${p}N + col;
  ${finish.join('\n  ')}
}`,
  };
}

import { Bindings } from './bindings.js';
import { type Gpu, spread } from './gpu.js';
import { type Job, bindJob } from './product-code.js';
import type { ProductForm } from './product-form.js';

/** Computes products in one dispatch. @param form takes all of them; default: the one chosen on this device */
export function runJobs(gpu: Gpu, jobs: readonly Job[], form: ProductForm = gpu.products.of(jobs)): void {
  const bindings = new Bindings();
  const bound = jobs.map((job, i) => bindJob(gpu, job, bindings, `j${i}`));
  const [height, width] = form.tile;
  const ends: number[] = [];
  for (const { m, n } of jobs) ends.push((ends.at(-1) ?? 0) + Math.ceil(m / height) * Math.ceil(n / width));
  const total = ends.at(-1)!;
  const numbers: Record<string, number> = Object.assign({ total }, ...bound.map((b) => b.numbers));
  for (const [i, { n }] of jobs.entries()) Object.assign(numbers, { [`j${i}Columns`]: Math.ceil(n / width), [`end${i}`]: ends[i]! });
  const [x, y] = spread(total);
  gpu.pipelines.run({
    name: jobs.length > 1 ? 'products' : 'product',
    variant: [form.name, ...bound.flatMap(({ job, variant }) => [form.variant?.(job) ?? '', variant])].join('|'),
    bindings,
    numbers,
    workgroup: form.threads,
    groups: [x, y, jobs[0]!.batch],
    directives: form.directives,
    subgroups: form.subgroups,
    code: () => ({
      declarations: [form.memory, ...bound.map((b) => form.code(b))].join('\n'),
      main: `let tile = group.x + group.y * groups.x;
  if (tile >= u.total) { return; }
  ${bound.map((_, i) => `${i === bound.length - 1 ? '' : `if (tile < u.end${i}) `}{ job_j${i}(tile${i === 0 ? '' : ` - u.end${i - 1}`}, group.z, thread${form.subgroups === true ? ', subgroup, lane, lanes' : ''}); }`).join(' else ')}`,
    }),
  });
}

import { Bindings } from './bindings.js';
import type { Kernel } from './call.js';
import { spread } from './gpu.js';
import { type PackedBits, packedMatrix } from './operands.js';

/** A packed weight as float32, four values a thread. */
export const unpackWeight: Kernel = (call) => {
  const [rows] = call.shape('words') as [number];
  const inner = call.number('inFeatures');
  const bindings = new Bindings();
  const operand = packedMatrix(call.info('words'), call.inputs['scale'], { bits: call.number('bits') as PackedBits, outer: rows, inner }).bind(call.gpu, bindings, 'weight');
  const out = call.output([rows, inner]);
  const to = bindings.write(out.buffer, { vec4: inner % 4 === 0 });
  const fours = Math.ceil(inner / 4);
  call.gpu.pipelines.run({
    name: 'unpackWeight',
    variant: operand.variant,
    bindings,
    numbers: { ...operand.numbers, fours, count: rows * fours },
    workgroup: 64,
    groups: spread(Math.ceil((rows * fours) / 64)),
    code: () => ({
      declarations: operand.code(),
      main: `
  let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i >= u.count) { return; }
  let row = i / u.fours;
  let column = i % u.fours * 4u;
  put_${to}(row * u.weightInner + column, u.weightInner - column, weight(0u, row, column));`,
    }),
  });
  return out.info;
};

import { Bindings } from './bindings.js';
import type { Kernel } from './call.js';
import { spread } from './gpu.js';
import { Product } from './product.js';

/** x + gate · y: in the product that y comes from, where there is one. */
export const gatedAdd: Kernel = (call) => {
  const { gpu } = call;
  const [x, gate, y] = [call.info('x'), call.info('gate'), call.info('y')];
  const [, rows, width] = x.shape as [number, number, number];
  const before = gpu.pending.get(y.dataId);
  const taken = before instanceof Product && call.size('x') > 0 ? before.extend(y, [x, gate], gpu.recording, () => ({ kind: 'gate', x: () => gpu.buffer(x), gate: () => gpu.rows(gate), rows })) : undefined;
  if (taken !== undefined) return taken;
  const bindings = new Bindings();
  const { buffer, offset, stride } = gpu.rows(gate);
  const [xs, ys, gates] = [bindings.read(call.buffer('x')), bindings.read(call.buffer('y')), bindings.read(buffer)];
  const out = call.output(x.shape);
  const to = bindings.write(out.buffer);
  const count = call.size('x');
  gpu.pipelines.run({
    name: 'gatedAdd',
    bindings,
    numbers: { count, rows, width, offset, stride },
    workgroup: 64,
    groups: spread(Math.ceil(count / 64)),
    code: () => ({
      main: `let i = (group.x + group.y * groups.x) * 64u + thread;
  if (i < u.count) { ${to}[i] = ${xs}[i] + ${gates}[u.offset + i / (u.rows * u.width) * u.stride + i % u.width] * ${ys}[i]; }`,
    }),
  });
  return out.info;
};

/** dGate = Σₜ dy · y and dY = gate · dy, a workgroup for 64 columns of a sample. */
export const gatedAddGradient: Kernel = (call) => {
  const [samples, rows, width] = call.shape('y') as [number, number, number];
  const bindings = new Bindings();
  const { buffer, offset, stride } = call.gpu.rows(call.info('gate'));
  const [dy, y, gates] = [bindings.read(call.buffer('dy')), bindings.read(call.buffer('y')), bindings.read(buffer)];
  const [dGate, dBranch] = [call.output([samples, width]), call.output([samples, rows, width])];
  const [toGate, toBranch] = [bindings.write(dGate.buffer), bindings.write(dBranch.buffer)];
  call.gpu.pipelines.run({
    name: 'gatedAddGrad',
    bindings,
    numbers: { rows, width, offset, stride },
    workgroup: 256,
    groups: rows === 0 ? [0, 0, 0] : [Math.ceil(width / 64), samples, 1],
    code: () => ({
      declarations: 'var<workgroup> partial : array<f32, 256>;',
      main: `
  let column = group.x * 64u + thread % 64u;
  var sum = 0.0;
  if (column < u.width) {
    let gate = ${gates}[u.offset + group.y * u.stride + column];
    for (var row = thread / 64u; row < u.rows; row += 4u) {
      let i = (group.y * u.rows + row) * u.width + column;
      let d = ${dy}[i];
      sum += d * ${y}[i];
      ${toBranch}[i] = gate * d;
    }
  }
  partial[thread] = sum;
  workgroupBarrier();
  if (thread < 64u && column < u.width) { ${toGate}[group.y * u.width + column] = partial[thread] + partial[thread + 64u] + partial[thread + 128u] + partial[thread + 192u]; }`,
    }),
  });
  return [dGate.info, dBranch.info];
};

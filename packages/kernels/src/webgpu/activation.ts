import type * as tf from '@tensorflow/tfjs-core';
import { Bindings } from './bindings.js';
import { type Call, type Kernel, sizeOf } from './call.js';
import { type Gpu, spread } from './gpu.js';
import type { DataId } from './internals.js';
import { Pending } from './pending.js';
import { Product } from './product.js';
import { activations } from './wgsl.js';

/** x · σ(x) that waits for a product to take it in. */
export class PendingSilu extends Pending {
  constructor(
    gpu: Gpu,
    /** What it is of. */
    readonly x: tf.TensorInfo,
  ) {
    super(gpu);
    this.hold(x);
  }

  start(): tf.TensorInfo {
    return this.result(this.x.shape);
  }

  protected compute(id: DataId): void {
    const x = this.gpu.buffer(this.x);
    elementwise(this.gpu, 'silu', [x], this.fill(id), sizeOf(this.x.shape));
  }
}

/** `torch.nn.GELU('tanh')`: in the product before it where there is one. */
export const gelu: Kernel = (call) => {
  const { gpu } = call;
  const x = call.info('x');
  const before = gpu.pending.get(x.dataId);
  const taken = before instanceof Product ? before.extend(x, [], gpu.recording, () => ({ kind: 'gelu' })) : undefined;
  return taken ?? now(gpu, 'gelu', [x]);
};

/** x · σ(x): in the product before it, or in one after it. */
export const silu: Kernel = (call) => {
  const { gpu } = call;
  const x = call.info('x');
  const before = gpu.pending.get(x.dataId);
  const taken = before instanceof Product ? before.extend(x, [], gpu.recording, () => ({ kind: 'silu' })) : undefined;
  return taken ?? (sizeOf(x.shape) === 0 ? now(gpu, 'silu', [x]) : new PendingSilu(gpu, x).start());
};

/** dy times the derivative at x. */
export const gradient =
  (kind: 'geluGrad' | 'siluGrad'): Kernel =>
  (call: Call) => {
    const { gpu } = call;
    const [dy, x] = [call.info('dy'), call.info('x')];
    const before = gpu.pending.get(dy.dataId);
    const taken = before instanceof Product ? before.extend(dy, [x], false, () => ({ kind, x: () => gpu.buffer(x) })) : undefined;
    return taken ?? now(gpu, kind, [dy, x]);
  };

type Kind = 'gelu' | 'silu' | 'geluGrad' | 'siluGrad';

function now(gpu: Gpu, kind: Kind, inputs: readonly tf.TensorInfo[]): tf.TensorInfo {
  const buffers = inputs.map((info) => gpu.buffer(info));
  const y = gpu.output(inputs[0]!.shape);
  elementwise(gpu, kind, buffers, gpu.backend.tensorMap.get(y.dataId).resource!, sizeOf(y.shape));
  return y;
}

/** Four values a thread. */
function elementwise(gpu: Gpu, kind: Kind, inputs: readonly GPUBuffer[], output: GPUBuffer, count: number): void {
  const bindings = new Bindings();
  const vec4 = count % 4 === 0;
  const [a, b] = inputs.map((buffer) => `get_${bindings.read(buffer, { vec4 })}(i, left)`);
  const y = bindings.write(output, { vec4 });
  gpu.pipelines.run({
    name: kind,
    bindings,
    numbers: { count },
    workgroup: 64,
    groups: spread(Math.ceil(count / 256)),
    code: () => ({
      declarations: activations,
      main: `
  let i = ((group.x + group.y * groups.x) * 64u + thread) * 4u;
  if (i >= u.count) { return; }
  let left = u.count - i;
  put_${y}(i, left, ${b === undefined ? `${kind}4(${a})` : `${a} * ${kind}4(${b})`});`,
    }),
  });
}

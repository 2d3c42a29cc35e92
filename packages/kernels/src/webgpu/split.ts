import * as tf from '@tensorflow/tfjs-core';
import { Bindings } from './bindings.js';
import { type Call, sizeOf } from './call.js';
import { type Gpu, type RowView, spread } from './gpu.js';
import type { DataId } from './internals.js';
import { Pending } from './pending.js';

/** Parts of a matrix along its last axis, `[..., W]`, which kernels of ours read where they are. */
class Split extends Pending {
  readonly #offsets = new Map<DataId, { offset: number; width: number }>();

  constructor(
    gpu: Gpu,
    readonly x: tf.TensorInfo,
  ) {
    super(gpu);
    this.hold(x);
  }

  override get due(): undefined {
    return undefined;
  }

  part(offset: number, width: number): tf.TensorInfo {
    const info = this.result([...this.x.shape.slice(0, -1), width]);
    this.#offsets.set(info.dataId, { offset, width });
    return info;
  }

  rowsOf(id: DataId): RowView {
    return { buffer: this.gpu.buffer(this.x), offset: this.#offsets.get(id)!.offset, stride: this.x.shape.at(-1)! };
  }

  protected compute(id: DataId): void {
    const { buffer, offset, stride } = this.rowsOf(id);
    const { width } = this.#offsets.get(id)!;
    const bindings = new Bindings();
    const from = bindings.read(buffer);
    const to = bindings.write(this.fill(id));
    const count = (sizeOf(this.x.shape) / stride) * width;
    this.gpu.pipelines.run({
      name: 'split',
      bindings,
      numbers: { offset, stride, width, count },
      workgroup: 64,
      groups: spread(Math.ceil(count / 64)),
      code: () => ({ main: `let i = (group.x + group.y * groups.x) * 64u + thread;\n if (i < u.count) { ${to}[i] = ${from}[i / u.width * u.stride + u.offset + i % u.width]; }` }),
    });
  }
}

/** `tf.split` along the last axis of what is on the device. @returns `undefined` where tfjs's kernel has to do it */
export function split(call: Call): tf.TensorInfo[] | undefined {
  const x = call.info('x');
  const [axis] = tf.util.parseAxisParam(call.attributes['axis'] as number, x.shape);
  const { backend, pending } = call.gpu;
  const onDevice = pending.has(x.dataId) || backend.tensorMap.get(x.dataId).resource != null;
  if (axis !== x.shape.length - 1 || x.dtype !== 'float32' || sizeOf(x.shape) === 0 || !onDevice) return undefined;
  const work = new Split(call.gpu, x);
  let offset = 0;
  return tf.backend_util.prepareSplitSize(x as tf.Tensor, call.attributes['numOrSizeSplits'] as number | number[], axis).map((width) => {
    const part = work.part(offset, width);
    offset += width;
    return part;
  });
}

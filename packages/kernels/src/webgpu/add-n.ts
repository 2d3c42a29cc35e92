import type * as tf from '@tensorflow/tfjs-core';
import { Bindings } from './bindings.js';
import { type Call, sizeOf } from './call.js';
import { spread } from './gpu.js';

/**
 * `tf.addN` of more tensors than a shader may bind, for which tfjs makes a shader that devices refuse: as many a dispatch as
 * fit, on top of the sum so far.
 * @returns `undefined` where tfjs's kernel can do it
 */
export function addN(call: Call): tf.TensorInfo | undefined {
  const { gpu } = call;
  const terms = Object.values(call.inputs) as tf.TensorInfo[];
  const [first] = terms;
  if (first === undefined || terms.length < gpu.mostBindings || terms.some(({ dtype }) => dtype !== 'float32')) return undefined;
  const count = sizeOf(first.shape);
  const out = call.output(first.shape);
  const most = gpu.mostBindings - 1;
  for (let start = 0; start < terms.length; start += most) {
    const bindings = new Bindings();
    const names = terms.slice(start, start + most).map((term) => `${bindings.read(gpu.buffer(term))}[i]`);
    const to = bindings.write(out.buffer);
    gpu.pipelines.run({
      name: 'addN',
      variant: start === 0 ? 'first' : 'next',
      bindings,
      numbers: { count },
      workgroup: 64,
      groups: spread(Math.ceil(count / 64)),
      code: () => ({ main: `let i = (group.x + group.y * groups.x) * 64u + thread;\n  if (i < u.count) { ${to}[i] ${start === 0 ? '=' : '+='} ${names.join(' + ')}; }` }),
    });
  }
  return out.info;
}

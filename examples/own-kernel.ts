// An operation of your own: its definition in tfjs's operations, and a kernel that takes its place where there is one.
import '@tensorflow/tfjs';
import { defineOp } from '@tinyfusion/kernels';
import * as tf from '@tensorflow/tfjs-core';

/** x · σ(1.702x), a cheap GELU, and its gradient dy · (s + 1.702x · s(1 - s)). */
const quickGelu = defineOp<{ x: tf.Tensor }, Record<string, never>, tf.Tensor>({
  name: 'OwnQuickGelu',
  // what is computed where no kernel is registered, and what kernels are compared with
  reference: ({ x }) => tf.mul(x, tf.sigmoid(tf.mul(x, 1.702))),
  // asked for only on backends that have the kernel; elsewhere the definition is differentiated
  gradient: (run, dy, { x }) => ({ x: () => run('OwnQuickGeluGrad', { dy, x })[0]! }),
});

const x = tf.linspace(-4, 4, 1001);
const gradient = tf.grad((at: tf.Tensor) => quickGelu({ x: at }, {}));
await tf.setBackend('cpu');
const defined = [quickGelu({ x }, {}), gradient(x)];

/** A kernel of the plain JavaScript backend: one pass over the values instead of three operations. */
function register(kernelName: string, compute: (...values: number[]) => number): void {
  tf.registerKernel({
    kernelName,
    backendName: 'cpu',
    kernelFunc: ({ inputs }) => {
      const tensors = Object.keys(inputs).toSorted().map((name) => inputs[name]!);
      const read = tensors.map(({ dataId }) => (tf.backend() as unknown as { readSync(id: object): Float32Array }).readSync(dataId));
      const values = Float32Array.from(read[0]!, (_, i) => compute(...read.map((all) => all[i]!)));
      const { shape } = tensors[0]!;
      return { shape, dtype: 'float32', dataId: tf.backend().write(values, shape, 'float32') };
    },
  });
}
const sigmoid = (v: number): number => 1 / (1 + Math.exp(-1.702 * v));
register('OwnQuickGelu', (v) => v * sigmoid(v));
register('OwnQuickGeluGrad', (dy, v) => dy * (sigmoid(v) + 1.702 * v * sigmoid(v) * (1 - sigmoid(v))));

const fused = [quickGelu({ x }, {}), gradient(x)];
for (const [i, what] of ['value', 'gradient'].entries()) console.log(what, 'differs by at most', (await tf.max(tf.abs(tf.sub(defined[i]!, fused[i]!))).data())[0]!.toExponential(1));

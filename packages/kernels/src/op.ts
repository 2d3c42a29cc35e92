import * as tf from '@tensorflow/tfjs-core';

/** Tensors by name; optional inputs are absent. */
export type Inputs = Record<string, tf.Tensor | undefined>;

/** Numbers and lists that an operation takes beside its tensors. */
export type Attributes = Readonly<Record<string, number | boolean | readonly number[]>>;

/** Runs a kernel of the present backend; several outputs where the kernel has them. */
export type RunKernel = (name: string, inputs: Inputs, attributes?: Attributes) => tf.Tensor[];

/** What {@link defineOp} needs to know about an operation. */
export interface OpSpec<I extends Inputs, A extends Attributes, O extends tf.Tensor> {
  /** Kernel name under which a backend may register a fused implementation. */
  name: string;
  /** The definition, in tfjs's own differentiable operations: used where no kernel is registered, and what kernels are tested against. */
  reference(inputs: I, attributes: A): O;
  /**
   * Gradients for backends that have the kernel, one closure an input, each called at most once and only where the
   * gradient is wanted.
   */
  gradient(run: RunKernel, dy: O, inputs: I, attributes: A): { [K in keyof I]?: () => tf.Tensor };
  /** Inputs that are int32 on purpose; all others are made float32 where they are not, as tfjs's arithmetic does. Default: none. */
  integers?: readonly (keyof I)[];
}

// tfjs's own customGrad computes the gradients of all inputs at once; frozen weights must not cost a product each
interface EngineWithGradients {
  runKernelFunc(call: {
    forwardFunc: (backend: unknown, save: (tensors: tf.Tensor[]) => void) => tf.Tensor;
    backwardsFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => Record<string, () => tf.Tensor>;
    inputs: Record<string, tf.Tensor>;
  }): tf.Tensor;
}

const run: RunKernel = (name, inputs, attributes = {}) => {
  const present = Object.fromEntries(Object.entries(inputs).filter(([, t]) => t !== undefined)) as Record<string, tf.Tensor>;
  const out = tf.engine().runKernel(name, present, attributes as never) as unknown as tf.Tensor | tf.Tensor[];
  return Array.isArray(out) ? out : [out];
};

/** Makes a differentiable operation that uses a backend's fused kernel where there is one. */
export function defineOp<I extends Inputs, A extends Attributes, O extends tf.Tensor>({ name, reference, gradient, integers = [] }: OpSpec<I, A, O>): (inputs: I, attributes: A) => O {
  const op = (inputs: I, attributes: A): O => {
    const others = Object.keys(inputs).filter((key) => inputs[key] !== undefined && inputs[key].dtype !== 'float32' && !integers.includes(key));
    if (others.length > 0) return tf.tidy(() => op({ ...inputs, ...Object.fromEntries(others.map((key) => [key, tf.cast(inputs[key]!, 'float32')])) }, attributes));
    if (tf.getKernel(name, tf.getBackend()) === undefined) return tf.tidy(() => reference(inputs, attributes));
    const names = Object.keys(inputs).filter((key) => inputs[key] !== undefined);
    const present = Object.fromEntries(names.map((key) => [key, inputs[key]!]));
    return (tf.engine() as unknown as EngineWithGradients).runKernelFunc({
      inputs: present,
      forwardFunc: (_backend, save) => {
        save(names.map((key) => present[key]!));
        return run(name, present, attributes)[0]!;
      },
      backwardsFunc: (dy, saved) => gradient(run, dy as O, Object.fromEntries(names.map((key, i) => [key, saved[i]!])) as I, attributes) as Record<string, () => tf.Tensor>,
    }) as O;
  };
  return op;
}

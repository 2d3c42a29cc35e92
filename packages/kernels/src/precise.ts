// WGSL promises little of its functions: sine and cosine to 2⁻¹¹ on [−π, π] and nothing beyond, tanh to 1e-5. That is a
// thousand roundings of float32, and sampling magnifies them. On WebGPU these compute from parts that are exact.
import * as tf from '@tensorflow/tfjs-core';

/** Kernel name of {@link sineCosine}: input x; outputs sin x, cos x. */
export const SINE_COSINE = 'TinyFusionSineCosine';

const coarse = (): boolean => tf.getBackend() === 'webgpu';

/** π/2 in three parts, of which the first two have so few bits that products with small integers are exact. */
const HALF_PI = [1.5703125, 4.837512969970703e-4, 7.549789954891882e-8] as const;

/**
 * Sine and cosine, to the last bits of float32 on every backend. Any shape, |x| up to 10⁴.
 * @returns `[sin x, cos x]`
 */
export function sineCosine<T extends tf.Tensor>(x: T): [T, T] {
  if (!coarse()) return [tf.sin(x), tf.cos(x)];
  if (tf.getKernel(SINE_COSINE, 'webgpu') !== undefined) return sineCosineKernel(x);
  return tf.tidy(() => {
    const turns = tf.floor(tf.add(tf.mul(x, 2 / Math.PI), 0.5)); // quarter turns
    let r: tf.Tensor = x;
    for (const part of HALF_PI) r = tf.sub(r, tf.mul(turns, part)); // in [−π/4, π/4]
    const z = tf.square(r);
    // minimax polynomials of Cephes' sinf and cosf (Moshier)
    const sine = tf.add(r, tf.mul(tf.mul(r, z), polynomial(z, [-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4])));
    const cosine = tf.add(tf.sub(1, tf.mul(z, 0.5)), tf.mul(tf.square(z), polynomial(z, [4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5])));
    /** The sine after a number of quarter turns, which swap sine and cosine and turn signs. */
    const after = (quarters: tf.Tensor): T => {
      const quarter = tf.sub(quarters, tf.mul(tf.floor(tf.mul(quarters, 0.25)), 4)); // 0 … 3
      const half = tf.floor(tf.mul(quarter, 0.5));
      const odd = tf.sub(quarter, tf.mul(half, 2));
      const value = tf.add(tf.mul(sine, tf.sub(1, odd)), tf.mul(cosine, odd));
      return tf.mul(value, tf.sub(1, tf.mul(half, 2))) as T;
    };
    return [after(turns), after(tf.add(turns, 1))];
  });
}

// tfjs's customGrad has one output
interface EngineWithGradients {
  runKernelFunc(call: {
    forwardFunc: (backend: unknown, save: (tensors: tf.Tensor[]) => void) => tf.Tensor[];
    backwardsFunc: (dy: tf.Tensor[], saved: tf.Tensor[]) => Record<string, () => tf.Tensor>;
    inputs: Record<string, tf.Tensor>;
  }): tf.Tensor[];
}

function sineCosineKernel<T extends tf.Tensor>(x: T): [T, T] {
  return (tf.engine() as unknown as EngineWithGradients).runKernelFunc({
    inputs: { x },
    forwardFunc: (_backend, save) => {
      const both = tf.engine().runKernel(SINE_COSINE, { x }) as unknown as tf.Tensor[];
      save(both);
      return both;
    },
    backwardsFunc: ([dSine, dCosine], [sine, cosine]) => ({ x: () => tf.sub(tf.mul(dSine!, cosine!), tf.mul(dCosine!, sine!)) }),
  }) as [T, T];
}

/** tanh, rounded near ±1 as exact arithmetic rounds it, on every backend. Any shape. */
export function preciseTanh<T extends tf.Tensor>(x: T): T {
  return (coarse() ? tanhByExp(x) : tf.tanh(x)) as T;
}

const tanhByExp = tf.customGrad((x, save) => {
  const value = tf.tidy(() => {
    const e = tf.exp(tf.mul(tf.abs(x as tf.Tensor), -2));
    return tf.mul(tf.sign(x as tf.Tensor), tf.sub(1, tf.div(tf.mul(e, 2), tf.add(e, 1))));
  });
  (save as tf.GradSaveFunc)([value]);
  return { value, gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => tf.tidy(() => tf.mul(dy, tf.sub(1, tf.square(saved[0]!)))) };
});

/** c₀ + c₁·z + c₂·z². */
const polynomial = (z: tf.Tensor, [c0, c1, c2]: readonly [number, number, number]): tf.Tensor => tf.add(tf.mul(tf.add(tf.mul(z, c2), c1), z), c0);

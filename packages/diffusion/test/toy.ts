import { type Denoiser, type GaussianDiffusion, GaussianDiffusion as Process } from '@tinyfusion/diffusion';
import * as tf from '@tensorflow/tfjs-core';

/** Starts tfjs's cpu backend. */
export async function useCpu(): Promise<void> {
  if (!(await tf.setBackend('cpu'))) throw new Error('the cpu backend does not start');
}

/** Data N(mean, deviation²) in every element: what a perfect model predicts, and where the flow leads, are known exactly. */
export class GaussianToy {
  constructor(
    readonly mean: number,
    readonly deviation: number,
    private readonly kept: Float64Array = new Process().tables.alphasCumprod,
  ) {}

  /** Predicts the noise, E[ε | xₜ]; with `variance: 'fixed-…'`. */
  readonly epsilon: Denoiser = (x, t) => {
    const kept = this.kept[Math.round(t.arraySync()[0]!)]!;
    const variance = kept * this.deviation ** 2 + 1 - kept;
    return tf.tidy(() => tf.mul(tf.sub(x, Math.sqrt(kept) * this.mean), Math.sqrt(1 - kept) / variance));
  };

  /** x at step `t` of the flow that passes through the standardised value z: the marginal's quantile stays the same. */
  onFlow(z: number, t: number): number {
    const kept = t < 0 ? 1 : this.kept[t]!;
    return Math.sqrt(kept) * this.mean + Math.sqrt(kept * this.deviation ** 2 + 1 - kept) * z;
  }
}

/** The process of the toy; the model predicts noise and no variance. */
export function toyProcess(respacing = ''): GaussianDiffusion {
  return new Process({ respacing, variance: 'fixed-small' });
}

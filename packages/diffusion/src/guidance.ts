import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { evaluate } from './evaluate.js';
import type { AsyncDenoiser, Denoiser } from './gaussian.js';

/** Options of {@link classifierFreeGuidance}. */
export interface GuidanceOptions {
  /** s in uncond + s·(cond − uncond). 1 is no guidance. DiT shows pictures at 4 and measures at 1.5. */
  scale: number;
  /**
   * How many of the output's first channels are guided. The reference guides 3, whatever the data has; `'all'` guides
   * as many as the data has. Default 3.
   */
  channels?: number | 'all';
}

/**
 * Classifier-free guidance (Ho & Salimans 2022) as a denoiser: one run of the model over the batch twice.
 *
 * @param model a denoiser of 2·N samples whose first N are conditioned and whose last N have the null class
 * @returns a denoiser of N samples; channels that are not guided are the conditioned ones. It promises its output where
 * the model does
 */
export function classifierFreeGuidance(model: Denoiser, options: GuidanceOptions): Denoiser;
export function classifierFreeGuidance(model: AsyncDenoiser, options: GuidanceOptions): AsyncDenoiser;
export function classifierFreeGuidance(model: AsyncDenoiser, { scale, channels = 3 }: GuidanceOptions): AsyncDenoiser {
  if (!Number.isFinite(scale)) throw new ArgumentError('GuidanceOptions.scale', scale, 'a finite number');
  if (channels !== 'all' && (!Number.isInteger(channels) || channels < 1)) throw new ArgumentError('GuidanceOptions.channels', channels, "a positive integer or 'all'");
  const guide = (output: tf.Tensor, dataChannels: number): tf.Tensor => {
    const [conditioned, unconditioned] = tf.split(output, 2, 0) as [tf.Tensor, tf.Tensor];
    const last = output.shape.length - 1;
    const guided = Math.min(channels === 'all' ? dataChannels : channels, output.shape[last]!);
    const rest = output.shape[last]! - guided;
    const [cond, kept] = rest === 0 ? [conditioned] : (tf.split(conditioned, [guided, rest], last) as [tf.Tensor, tf.Tensor]);
    const [uncond] = rest === 0 ? [unconditioned] : (tf.split(unconditioned, [guided, rest], last) as [tf.Tensor, tf.Tensor]);
    const mixed = tf.add(uncond!, tf.mul(tf.sub(cond!, uncond!), scale));
    return kept === undefined ? mixed : tf.concat([mixed, kept], last);
  };
  return (x, t) => {
    const dataChannels = x.shape.at(-1)!;
    return evaluate(model, () => [tf.concat([x, x], 0), tf.concat([t, t], 0)], (output) => guide(output, dataChannels));
  };
}

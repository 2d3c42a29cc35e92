import { ArgumentError, type Rng, throwIfCancelled } from '@tinyfusion/core';
import { GaussianDiffusion, type NoiseSource, classifierFreeGuidance, ddpm, sampleToEnd } from '@tinyfusion/diffusion';
import { placeRows } from '@tinyfusion/kernels';
import type { HookOptions } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import type { MAR } from './mar.js';
import { TokenMask } from './token-mask.js';

/** One iteration of MAR's generation. */
export interface MARStep {
  /** Iterations done, from 1. */
  step: number;
  total: number;
  /** Tokens of each sample that are still to come. */
  masked: number;
  /** Strength of guidance in this iteration. */
  guidance: number;
  /**
   * `[N, H, W, C]` latents so far, zeros where tokens are still to come. They belong to the sampler until the next
   * step is asked for; the last one's to the caller.
   */
  x: tf.Tensor4D;
}

/** Options of {@link sampleMAR}. */
export interface SampleMAROptions extends HookOptions {
  /** A class for each sample, or `null` for samples without one. */
  labels: readonly (number | null)[];
  /** Random stream of the orders, and of the noise. */
  rng: Rng;
  /** Iterations in which tokens are drawn, at most one a token. Default 64, as upstream's. */
  iterations?: number;
  /** Steps of the head's diffusion, in every spelling of respacing. Default `'100'`, as upstream's. */
  steps?: string;
  /** Strength of classifier-free guidance; 1 is none. Default 1. */
  guidance?: number;
  /** `'linear'` grows from 1 with the number of known tokens, `'constant'` does not. Default `'linear'`. */
  guidanceSchedule?: 'linear' | 'constant';
  /** What the head's noise is multiplied by. Default 1. */
  temperature?: number;
  /** Bound of the tokens that the head predicts on its way, e.g. 4 for latents of unit variance: a small head, whose first steps are far off, needs it. Default: none, as upstream. */
  clipDenoised?: number | undefined;
  /** Order in which each sample's tokens are drawn, the last entries first. Default: drawn from `rng`. */
  orders?: readonly Int32Array[];
  /** Replaces `rng` for noise: for each iteration the start, then one draw a step. */
  noiseSource?: NoiseSource;
  signal?: AbortSignal | undefined;
}

/**
 * Draws images with MAR: in each iteration the transformer says what the known tokens make of the others, and the head
 * draws some of these by a short diffusion; how many follows a cosine (Li et al. 2024, section 3.4). Masks and orders
 * live on the CPU, so nothing is read back from the device.
 *
 * What the maths lets be spared is spared, with the same numbers: in the first iteration no token is known, so the
 * transformer runs once for each class in the batch and not for each sample; the head's condition is projected once an
 * iteration and not once a step; and a guided head carries one state, where upstream carries a second one that it
 * ignores. Attention in MAR looks both ways, so keys and values of known tokens change in every iteration and cannot be
 * kept. Upstream: `MAR.sample_tokens`.
 *
 * @yields every iteration
 * @throws ArgumentError where an option makes no sense
 */
export async function* sampleMAR(mar: MAR, options: SampleMAROptions): AsyncGenerator<MARStep, void, void> {
  const { labels, rng, iterations = 64, steps = '100', guidance = 1, guidanceSchedule = 'linear', temperature = 1, clipDenoised, noiseSource, signal, hook, branchHook } = options;
  checkOptions(mar, { labels, iterations, guidance, guidanceSchedule, temperature });
  const n = labels.length;
  const { tokens: length, tokenChannels: channels } = mar;
  const diffusion = new GaussianDiffusion({ schedule: 'squared-cosine', respacing: steps });
  const orders = options.orders ?? Array.from({ length: n }, () => rng.permutation(length));
  checkOrders(orders, n, length);
  const draw: NoiseSource = noiseSource ?? ((shape) => tf.tensor(rng.normal(shape.reduce((a, b) => a * b, 1)), [...shape]));

  /** Conditions for some labels, `[labels, D]`. */
  const conditions = (of: readonly (number | null)[]): tf.Tensor2D => {
    const drop = tf.tensor1d(Float32Array.from(of, (label) => (label === null ? 1 : 0)));
    return mar.classEmbedding(tf.tensor1d(Int32Array.from(of, (label) => label ?? 0), 'int32'), drop);
  };
  const transform = (x: tf.Tensor3D, mask: TokenMask, of: readonly (number | null)[]): tf.Tensor2D => {
    const known = mar.encode(x, mask, conditions(of), { hook, branchHook });
    return tf.reshape(mar.decode(known, mask, { hook, branchHook }), [of.length * length, -1]);
  };

  const guided = guidance !== 1;
  const asked = guided ? [...labels, ...labels.map(() => null)] : labels;
  let tokens = tf.zeros([n, length, channels]) as tf.Tensor3D;
  let mask = TokenMask.ofOrders(orders, length);
  let x: tf.Tensor4D | undefined;
  let handedOver = false;
  try {
    for (let step = 0; step < iterations; step++) {
      throwIfCancelled(signal, 'sample');
      const remaining = Math.max(1, Math.min(mask.maskedCount - 1, Math.floor(length * Math.cos(((Math.PI / 2) * (step + 1)) / iterations))));
      const next = TokenMask.ofOrders(orders, remaining);
      const last = step === iterations - 1;
      // tokens to draw now: masked before and not after, or in the last iteration all that are left
      const wanted = last ? mask.maskedRows() : new TokenMask(n, length, mask.masked.map((m, i) => (m !== 0 && next.masked[i] === 0 ? 1 : 0))).maskedRows();

      const z = tf.tidy(() => {
        if (step > 0) {
          const all = transform(guided ? tf.concat([tokens, tokens], 0) : tokens, guided ? twice(mask) : mask, asked);
          return tf.gather(all, tf.tensor1d(guided ? Int32Array.from([...wanted, ...wanted.map((row) => row + n * length)]) : wanted, 'int32'));
        }
        const classes = [...new Set(asked)];
        const all = transform(tf.zeros([classes.length, length, channels]), new TokenMask(classes.length, length, new Uint8Array(classes.length * length).fill(1)), classes);
        const rowOf = (sample: number, row: number) => classes.indexOf(asked[sample]!) * length + (row % length);
        const rows = [...wanted].map((row) => rowOf(Math.floor(row / length), row));
        const unconditioned = guided ? [...wanted].map((row) => rowOf(n + Math.floor(row / length), row)) : [];
        return tf.gather(all, tf.tensor1d(Int32Array.from([...rows, ...unconditioned]), 'int32'));
      });
      const strength = guidanceSchedule === 'linear' ? 1 + ((guidance - 1) * (length - remaining)) / length : guidance;
      const head = mar.diffloss.net.conditioned(z);
      z.dispose();
      const noise = draw([wanted.length, channels]);
      try {
        const plain = (values: tf.Tensor, t: tf.Tensor1D) => head.denoiser(values as tf.Tensor2D, t);
        const drawn = (await sampleToEnd(
          ddpm(diffusion, guided ? classifierFreeGuidance(plain, { scale: strength, channels: 'all' }) : plain, { noise, temperature, clipDenoised: clipDenoised ?? false, noiseSource: draw, signal }),
        )) as tf.Tensor2D;
        const updated = tf.tidy(() => {
          const before = tf.reshape(tokens, [n * length, channels]);
          const isNew = new Float32Array(n * length);
          for (const row of wanted) isNew[row] = 1;
          const placed = placeRows(drawn, tf.zeros([1, channels]), wanted, n * length);
          return tf.reshape(tf.add(tf.mul(before, tf.tensor2d(isNew.map((v) => 1 - v), [n * length, 1])), placed), [n, length, channels]) as tf.Tensor3D;
        });
        drawn.dispose();
        tokens.dispose();
        tokens = updated;
      } finally {
        noise.dispose();
        head.dispose();
      }
      mask = next;
      x?.dispose();
      x = mar.unpatchify(tokens);
      handedOver = last;
      yield { step: step + 1, total: iterations, masked: last ? 0 : remaining, guidance: strength, x };
      // timers and input get their turn
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  } finally {
    tokens.dispose();
    if (!handedOver) x?.dispose();
  }
}

/** The mask of a batch that holds every sample twice. */
const twice = (mask: TokenMask): TokenMask => new TokenMask(2 * mask.samples, mask.length, Uint8Array.from([...mask.masked, ...mask.masked]));

function checkOptions(mar: MAR, { labels, iterations, guidance, guidanceSchedule, temperature }: Required<Pick<SampleMAROptions, 'labels' | 'iterations' | 'guidance' | 'guidanceSchedule' | 'temperature'>>): void {
  const classes = mar.config.numClasses;
  if (labels.length === 0) throw new ArgumentError('SampleMAROptions.labels', labels, 'at least one');
  for (const label of labels) if (label !== null && !(Number.isInteger(label) && label >= 0 && label < classes)) throw new ArgumentError('SampleMAROptions.labels', label, `integers from 0 to ${classes - 1}, or null for no class`);
  if (!Number.isInteger(iterations) || iterations < 1 || iterations > mar.tokens) throw new ArgumentError('SampleMAROptions.iterations', iterations, `an integer from 1 to ${mar.tokens}, the number of tokens`);
  if (!Number.isFinite(guidance)) throw new ArgumentError('SampleMAROptions.guidance', guidance, 'a finite number');
  if (guidanceSchedule !== 'linear' && guidanceSchedule !== 'constant') throw new ArgumentError('SampleMAROptions.guidanceSchedule', guidanceSchedule, "'linear' or 'constant'");
  if (!(temperature >= 0 && Number.isFinite(temperature))) throw new ArgumentError('SampleMAROptions.temperature', temperature, 'a number of at least 0');
}

function checkOrders(orders: readonly Int32Array[], samples: number, length: number): void {
  if (orders.length !== samples) throw new ArgumentError('SampleMAROptions.orders', orders.length, `${samples}, one for each label`);
  for (const order of orders) if (order.length !== length || new Set(order).size !== length || order.some((i) => i < 0 || i >= length)) throw new ArgumentError('SampleMAROptions.orders', Array.from(order), `permutations of 0 … ${length - 1}`);
}

import type { LongTaskOptions } from '@tinyfusion/core';
import { type AsyncDenoiser, classifierFreeGuidance } from '@tinyfusion/diffusion';
import { LoraLinear } from '@tinyfusion/lora';
import { type CompiledModel, type DiT, compile } from '@tinyfusion/models';
import { type BlockHook, composeHooks } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { type StepCaching, cachedPass } from './step-caching.js';

/** Options of {@link Denoisers}. */
export interface DenoisersOptions extends StepCaching {
  /** Strength of classifier-free guidance; 1 is none. */
  guidance: number;
  /** How many channels are guided. Default 3, the reference's. */
  guidedChannels?: number | 'all';
  /** Stands around each block, and does the same at every step. Default: none. */
  hook?: BlockHook | undefined;
  /** Whether a step is recorded once and replayed, where it can be. Default `true`. */
  compile?: boolean | undefined;
}

/** A denoiser for some labels, and how to free what it holds. */
export interface HeldDenoiser {
  denoiser: AsyncDenoiser;
  dispose(): void;
}

/**
 * Guided denoisers of one DiT or SiT, for the labels of one batch after the other. On WebGPU a step is recorded by
 * `compile` for the size of a batch, and anew for another size or changed weights; with step caching, with low-rank
 * adapters (which may be set otherwise between two steps), without `compile`, and on other backends the model runs as it is.
 */
export class Denoisers {
  readonly #model: DiT;
  readonly #options: DenoisersOptions;
  #recording: { compiled: CompiledModel; batch: number } | undefined;

  /** @param model borrowed */
  constructor(model: DiT, options: DenoisersOptions) {
    this.#model = model;
    this.#options = options;
  }

  /** Whether a step is recorded. */
  get records(): boolean {
    const { compile: wanted = true, schedule, around } = this.#options;
    return wanted && schedule === undefined && around === undefined && tf.getBackend() === 'webgpu' && ![...this.#model.namedModules()].some(([, module]) => module instanceof LoraLinear);
  }

  /**
   * A denoiser for one batch; it is to be disposed of before the next is asked for.
   * @throws CancelledError while shaders are compiled
   */
  async of(labels: readonly number[] | Int32Array, options: LongTaskOptions = {}): Promise<HeldDenoiser> {
    if (!this.records) return this.#plain(labels);
    const { guidance: scale, guidedChannels, hook } = this.#options;
    if (this.#recording?.batch !== labels.length || this.#recording.compiled.stale) {
      this.dispose();
      const cfg = scale === 1 ? undefined : { scale, ...(guidedChannels === undefined ? {} : { channels: guidedChannels }) };
      this.#recording = { compiled: await compile(this.#model, { ...options, batch: labels.length, cfg, hook }), batch: labels.length };
    }
    return { denoiser: this.#recording.compiled.denoiser(labels), dispose: () => {} };
  }

  /** Frees the recording. */
  dispose(): void {
    this.#recording?.compiled.dispose();
    this.#recording = undefined;
  }

  #plain(labels: readonly number[] | Int32Array): HeldDenoiser {
    const { guidance: scale, guidedChannels, hook, ...caching } = this.#options;
    const y = tf.tensor1d(scale === 1 ? [...labels] : [...labels, ...labels.map(() => this.#model.nullClass)], 'int32');
    const { pass, dispose } = cachedPass((x, t, own) => this.#model.forward(x as tf.Tensor4D, t, y, { hook: hook === undefined ? own : composeHooks(hook, own) }), caching);
    return {
      denoiser: scale === 1 ? pass : classifierFreeGuidance(pass, { scale, ...(guidedChannels === undefined ? {} : { channels: guidedChannels }) }),
      dispose: () => {
        dispose();
        y.dispose();
      },
    };
  }
}

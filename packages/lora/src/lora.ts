import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import { type Init, Linear, type Module, replaceModule } from '@tinyfusion/nn';
import { type StateDict, toFloat32 } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { LoraLinear } from './lora-linear.js';

/** Options of {@link injectLora}; the defaults are TinyFusion's. */
export interface LoraOptions {
  /** An `Rng` draws A (uniform ±1/√in) and leaves B zero; `'zeros'` leaves both to a file. */
  init: Init;
  /** Default 8. */
  rank?: number;
  /** Numerator of the scale alpha/rank. Default twice the rank. */
  alpha?: number;
  /** Which linear layers, by path: a pattern, a list of paths or of their last names, or a test. Default: all. */
  targets?: RegExp | readonly string[] | ((path: string, layer: Linear) => boolean);
}

/**
 * Low-rank adapters on linear layers. The layers are replaced in the model and their own weights frozen; nothing in the
 * model knows. At first the model computes what it did.
 * @throws ArgumentError where no layer is targeted
 */
export function injectLora(root: Module, { init, rank = 8, alpha = 2 * rank, targets = () => true }: LoraOptions): LoraAdapters {
  if (!Number.isInteger(rank) || rank < 1) throw new ArgumentError('LoraOptions.rank', rank, 'a positive integer');
  const all = [...root.namedModules()].filter((entry): entry is [string, Linear] => entry[1] instanceof Linear && !(entry[1] instanceof LoraLinear));
  const chosen = all.filter(([path, layer]) => matches(targets, path, layer));
  if (chosen.length === 0) throw new ArgumentError('LoraOptions.targets', String(targets), `a choice among the linear layers: ${all.slice(0, 8).map(([path]) => path).join(', ')} …`);
  return new LoraAdapters(root, chosen, rank, alpha / rank, init);
}

/** The adapters of one model. */
export class LoraAdapters {
  readonly #root: Module;
  readonly #layers = new Map<string, LoraLinear>();
  readonly #frozen: { variable: tf.Variable; trainable: boolean }[] = [];

  /** @internal use {@link injectLora} */
  constructor(root: Module, layers: readonly (readonly [string, Linear])[], rank: number, scale: number, init: Init) {
    this.#root = root;
    for (const [, variable] of root.namedParameters()) {
      this.#frozen.push({ variable, trainable: variable.trainable });
      variable.trainable = false;
    }
    for (const [path, layer] of layers) {
      const adapted = new LoraLinear(layer, rank, scale, init);
      replaceModule(root, path, adapted);
      this.#layers.set(path, adapted);
    }
  }

  /** Paths of the adapted layers. */
  get paths(): string[] {
    return [...this.#layers.keys()];
  }

  /** A and B of every adapter: what an optimiser is given. */
  parameters(): tf.Variable[] {
    return [...this.#layers.values()].flatMap((l) => [l.lora_A, l.lora_B]);
  }

  /** Values in the adapters; the model's own are frozen. */
  parameterCount(): number {
    return this.parameters().reduce((sum, p) => sum + p.size, 0);
  }

  /** Adds every correction to its weight. */
  merge(): void {
    for (const layer of this.#layers.values()) layer.merge();
  }

  /** Takes every correction out of its weight again. */
  unmerge(): void {
    for (const layer of this.#layers.values()) layer.unmerge();
  }

  /**
   * The adapters' values by name.
   * @yields `['blocks.0.attn.qkv.lora_A.weight', variable]`; the variables stay the adapters'
   */
  *state(): Generator<[string, tf.Variable]> {
    for (const [path, layer] of this.#layers) {
      yield [`${path}.lora_A.weight`, layer.lora_A];
      yield [`${path}.lora_B.weight`, layer.lora_B];
    }
  }

  /** @throws CheckpointError where a tensor is missing or of another shape; nothing is changed then */
  async load(state: StateDict): Promise<void> {
    const values: [tf.Variable, Float32Array][] = [];
    for (const [name, variable] of this.state()) {
      const record = state.tensors.get(name);
      if (record === undefined || String(record.shape) !== String(variable.shape)) throw new CheckpointError(`the adapter file has ${record === undefined ? 'no' : `[${record.shape.join(', ')}] for`} ${name}, expected [${variable.shape.join(', ')}]. Inject with the rank and targets that it was trained with.`);
      values.push([variable, await toFloat32(record)]);
    }
    for (const [variable, list] of values) tf.tidy(() => variable.assign(tf.tensor(list, variable.shape)));
  }

  /** Puts the plain layers back, unmerged, makes parameters trainable as they were, and frees the adapters. */
  remove(): void {
    this.unmerge();
    for (const [path, layer] of this.#layers) {
      replaceModule(this.#root, path, layer.base);
      tf.dispose([layer.lora_A, layer.lora_B]);
    }
    this.#layers.clear();
    for (const { variable, trainable } of this.#frozen) variable.trainable = trainable;
  }
}

function matches(targets: NonNullable<LoraOptions['targets']>, path: string, layer: Linear): boolean {
  if (typeof targets === 'function') return targets(path, layer);
  if (targets instanceof RegExp) return targets.test(path);
  return targets.some((target) => path === target || path.endsWith(`.${target}`));
}

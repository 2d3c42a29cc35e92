import { ArgumentError, type Rng } from '@tinyfusion/core';
import { Linear, Module, replaceModule } from '@tinyfusion/nn';
import { type StateDict, toFloat32 } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { checkChoice, isChosen } from './layer-choice.js';
import { checkState } from './check-state.js';
import { LoraLinear } from './lora-linear.js';
import { type LoraOptions, type LoraSettings, checkInit, isRng, settingsAt, settingsOf } from './lora-options.js';

/** The adapters of one model, by name. They are freed with it. */
export class LoraAdapters {
  readonly #root: Module;
  readonly #layers = new Map<string, LoraLinear>();
  readonly #settings = new Map<string, LoraSettings>();
  readonly #frozen: { variable: tf.Variable; trainable: boolean }[] = [];
  #active = new Map<string, number>();
  #merged = false;
  #rng: Rng | undefined;

  /** @internal use {@link injectLora} */
  constructor(root: Module) {
    this.#root = root;
  }

  /** The model. */
  get root(): Module {
    return this.#root;
  }

  /** Names of the adapters, in the order they were added. */
  get names(): string[] {
    return [...this.#settings.keys()];
  }

  /** Weights of the active adapters by name. */
  get active(): ReadonlyMap<string, number> {
    return this.#active;
  }

  /** Whether the active adapters are part of the weights. */
  get merged(): boolean {
    return this.#merged;
  }

  /** Paths of the layers that have an adapter. */
  get paths(): string[] {
    return [...this.#layers.keys()];
  }

  /** Paths of one adapter's layers. */
  pathsOf(name?: string): string[] {
    const own = this.#nameOf('pathsOf', name);
    return this.paths.filter((path) => this.#layers.get(path)!.adapters.has(own));
  }

  /** What one adapter is. */
  settings(name?: string): LoraSettings {
    return this.#settings.get(this.#nameOf('settings', name))!;
  }

  /**
   * Adds an adapter. The first one is active at once, others when {@link setActive} says so.
   * @throws ArgumentError where the name is taken or no layer is targeted; nothing is changed then
   */
  add(name: string, { init, targets = () => true, exclude = [], ...options }: LoraOptions): void {
    // the name becomes a field of the layer, and part of its parameters' paths
    if (!/^\w[\w-]*$/.test(name) || name in Module.prototype) throw new ArgumentError('LoraAdapters.add: name', name, 'letters, digits, _ and -, and no method of a module');
    if (this.#settings.has(name)) throw new ArgumentError('LoraAdapters.add: name', name, `a new name beside ${this.names.join(', ')}`);
    const settings = settingsOf(options);
    checkChoice('LoraOptions.targets', targets);
    checkChoice('LoraOptions.exclude', exclude);
    checkInit(init);
    const all = [...this.#root.namedModules()].filter((entry): entry is [string, Linear] => entry[1] instanceof Linear);
    const chosen = all.filter(([path, layer]) => isChosen(targets, path, layer) && !isChosen(exclude, path, layer)).map(([path, layer]) => [path, layer, settingsAt(settings, path)] as const);
    if (chosen.length === 0) throw new ArgumentError('LoraOptions.targets', String(targets), `a choice among the linear layers: ${all.slice(0, 8).map(([path]) => path).join(', ')} …`);
    if (this.#frozen.length === 0) this.#freeze();
    this.#settings.set(name, settings);
    this.#unmerged(() => {
      for (const [path, layer, own] of chosen) this.#adapted(path, layer).addAdapter(name, own, init);
      if (this.#settings.size === 1) this.#active.set(name, 1);
      this.#activate();
    });
  }

  /** Takes an adapter off the model and frees it; layers without one are plain again. */
  delete(name: string): void {
    this.#nameOf('delete', name);
    this.#unmerged(() => {
      this.#active.delete(name);
      this.#settings.delete(name);
      this.#activate();
      for (const [path, layer] of this.#layers) {
        layer.deleteAdapter(name);
        if (layer.adapters.size === 0) this.#restore(path, layer);
      }
    });
  }

  /**
   * Chooses what the model computes from now on: x(W + Σ wᵢ ΔWᵢ)ᵀ + b over the adapters named, none for the model's own
   * output. Nothing is built anew, so this may be called between the steps of a sampler; merged weights are merged again.
   * Only active adapters train. With DoRA, too, wᵢ weighs the whole ΔWᵢ, by the base weight's norm: a sum of several is
   * the same merged and unmerged, in any order (unlike PEFT's, whose scale is inside of the norm).
   * @param weights one a name. Default: 1 each
   */
  setActive(names: readonly string[], weights?: readonly number[]): void {
    if (!Array.isArray(names)) throw new ArgumentError('LoraAdapters.setActive: names', names, `a list, such as [${this.names.map((name) => `'${name}'`).join(', ')}]`);
    for (const name of names) this.#nameOf('setActive', name);
    if (new Set(names).size !== names.length) throw new ArgumentError('LoraAdapters.setActive: names', names, 'each adapter once');
    const given = weights ?? names.map(() => 1);
    if (!Array.isArray(given) || given.length !== names.length || !given.every(Number.isFinite)) throw new ArgumentError('LoraAdapters.setActive: weights', weights, `${names.length} finite numbers, one a name`);
    this.#unmerged(() => {
      this.#active = new Map(names.map((name, i) => [name, given[i]!]));
      this.#activate();
    });
  }

  /** A, B and magnitudes of one adapter, or of all active ones: what an optimiser is given. */
  parameters(name?: string): tf.Variable[] {
    const names = name === undefined ? [...this.#active.keys()] : [this.#nameOf('parameters', name)];
    return [...this.#layers.values()].flatMap((layer) => names.flatMap((own) => Array.from(layer.adapters.get(own)?.namedParameters() ?? [], ([, variable]) => variable)));
  }

  /** Values in {@link parameters}; the model's own are frozen. */
  parameterCount(name?: string): number {
    return this.parameters(name).reduce((sum, p) => sum + p.size, 0);
  }

  /**
   * From now on dropout is drawn from `rng`, in the order of forward passes: its state, saved, continues a run exactly.
   * Without dropout training needs no such call.
   * @throws ArgumentError where the adapters are merged, or there is no stream
   */
  train({ rng }: { rng: Rng }): void {
    if (!isRng(rng)) throw new ArgumentError('LoraAdapters.train: rng', rng, 'an Rng, as in train({ rng: createRng(0) })');
    if (this.#merged) throw new ArgumentError('LoraAdapters.train: merged', true, 'adapters that are not merged; call unmerge() first');
    this.#setRng(rng);
  }

  /** No dropout from now on, as at first: forward passes are deterministic. */
  eval(): void {
    this.#setRng(undefined);
  }

  /**
   * Adds every active correction to its weight, in a second copy: the adapted layers' weights take their space twice
   * until {@link unmerge}, and later changes of the adapters are not seen.
   * @throws ArgumentError where a weight is packed, or dropout is on; nothing is changed then
   */
  merge(): void {
    this.#checkMergeable();
    for (const layer of this.#layers.values()) layer.merge();
    this.#merged = true;
  }

  /** Puts the weights back to the bit, and frees the sums. */
  unmerge(): void {
    for (const layer of this.#layers.values()) layer.unmerge();
    this.#merged = false;
  }

  /**
   * One adapter's values by name.
   * @yields `['blocks.0.attn.qkv.lora_A.weight', variable]`, `.lora_B.weight` and with DoRA `.lora_magnitude_vector`; the variables stay the adapter's
   */
  *state(name?: string): Generator<[string, tf.Variable]> {
    const own = this.#nameOf('state', name);
    for (const [path, layer] of this.#layers) {
      const adapter = layer.adapters.get(own);
      if (adapter === undefined) continue;
      yield [`${path}.lora_A.weight`, adapter.lora_A];
      yield [`${path}.lora_B.weight`, adapter.lora_B];
      if (adapter.lora_magnitude_vector !== undefined) yield [`${path}.lora_magnitude_vector`, adapter.lora_magnitude_vector];
    }
  }

  /** Copies values of `state` into one adapter. @throws CheckpointError where one is missing, left over or of another shape; nothing is changed then */
  async load(state: StateDict, name?: string): Promise<void> {
    const own = new Map(this.state(name));
    checkState(own, state);
    const values: [tf.Variable, Float32Array][] = [];
    for (const [key, variable] of own) values.push([variable, await toFloat32(state.tensors.get(key)!)]);
    this.#unmerged(() => {
      for (const [variable, list] of values) tf.tidy(() => variable.assign(tf.tensor(list, variable.shape)));
    });
  }

  /**
   * Puts the plain layers back, makes parameters trainable as they were, and frees the adapters.
   * @param options `merged`: whether the weights keep the active corrections. Default `false`: they are what they were, to the bit
   * @throws ArgumentError where `merged` and {@link merge} would throw
   */
  remove({ merged = false }: { merged?: boolean } = {}): void {
    if (merged) {
      this.#checkMergeable();
      // one after the other: no more than one layer takes its space twice
      for (const layer of this.#layers.values()) {
        layer.merge();
        if (layer.weight !== layer.base.weight) layer.base.weight.assign(layer.weight);
        layer.unmerge();
      }
    }
    this.unmerge();
    for (const [path, layer] of this.#layers) {
      for (const name of this.names) layer.deleteAdapter(name);
      this.#restore(path, layer);
    }
    this.#settings.clear();
    this.#active.clear();
    this.#rng = undefined;
    for (const { variable, trainable } of this.#frozen.splice(0)) variable.trainable = trainable;
  }

  [Symbol.dispose](): void {
    this.remove();
  }

  #nameOf(method: string, name: string | undefined): string {
    if (name !== undefined && this.#settings.has(name)) return name;
    if (name === undefined && this.#settings.size === 1) return this.names[0]!;
    throw new ArgumentError(`LoraAdapters.${method}: name`, name, `one of the adapters: ${this.names.join(', ') || 'there are none'}`);
  }

  #freeze(): void {
    for (const [, variable] of this.#root.namedParameters()) {
      this.#frozen.push({ variable, trainable: variable.trainable });
      variable.trainable = false;
    }
  }

  /** The adapted layer at `path`, put there where there is none. */
  #adapted(path: string, layer: Linear): LoraLinear {
    if (layer instanceof LoraLinear) return layer;
    const adapted = new LoraLinear(layer);
    adapted.drawFrom(this.#rng);
    replaceModule(this.#root, path, adapted);
    this.#layers.set(path, adapted);
    return adapted;
  }

  #restore(path: string, layer: LoraLinear): void {
    replaceModule(this.#root, path, layer.base);
    this.#layers.delete(path);
  }

  #checkMergeable(): void {
    if (this.#rng !== undefined) throw new ArgumentError('LoraAdapters.merge: train', true, 'a model that is not in training; call eval() first');
    for (const [path, { packing }] of this.#layers) if (packing !== undefined) throw new ArgumentError(`merge: ${path}.weight`, packing, 'float32: packed weights would round the correction away; load the model with dtype F32');
  }

  #activate(): void {
    for (const layer of this.#layers.values()) layer.activate(this.#active);
  }

  #setRng(rng: Rng | undefined): void {
    this.#rng = rng;
    for (const layer of this.#layers.values()) layer.drawFrom(rng);
  }

  /** Makes a change on weights that are not merged, and merges again where they were. */
  #unmerged(change: () => void): void {
    const { merged } = this;
    if (merged) this.unmerge();
    change();
    if (merged) this.merge();
  }
}

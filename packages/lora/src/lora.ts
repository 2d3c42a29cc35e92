import { ArgumentError } from '@tinyfusion/core';
import type { Module } from '@tinyfusion/nn';
import { LoraAdapters } from './lora-adapters.js';
import { LoraLinear } from './lora-linear.js';
import type { LoraOptions } from './lora-options.js';

/** Options of {@link injectLora}. */
export interface InjectLoraOptions extends LoraOptions {
  /** Name of the adapter, where a model has several. Default `'default'`. */
  name?: string;
}

/**
 * Low-rank adapters on linear layers. The layers are replaced in the model and all of its own weights frozen; nothing in
 * the model knows. At first the model computes what it did. Paths are those of the model as it is: a pruned one's layers
 * have their new numbers.
 * @throws ArgumentError where no layer is targeted, an option is out of range, or the model has adapters already
 */
export function injectLora(root: Module, { name = 'default', ...options }: InjectLoraOptions = {} as InjectLoraOptions): LoraAdapters {
  for (const [path, module] of root.namedModules()) if (module instanceof LoraLinear) throw new ArgumentError('injectLora: root', path, 'a model without adapters; further ones are added with add() of the adapters it has');
  const adapters = new LoraAdapters(root);
  adapters.add(name, options);
  return adapters;
}

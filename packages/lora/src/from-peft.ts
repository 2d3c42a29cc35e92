import { CheckpointError } from '@tinyfusion/core';
import { Linear, type Module } from '@tinyfusion/nn';
import type { StateDict } from '@tinyfusion/weights';
import { injectLora } from './lora.js';
import { LoraAdapters } from './lora-adapters.js';
import { type PeftConfig, readPeftConfig, settingsOfPeft } from './peft-config.js';
import { layersIn, withoutPrefix } from './peft-names.js';
import { isTargeted, saysWhichLayers } from './peft-targets.js';

/** Options of {@link fromPeft}. */
export interface FromPeftOptions {
  /** What to call the adapter. Default `'default'`. */
  name?: string;
}

/**
 * An adapter that PEFT saved, on a model with the same paths. What is not supported is refused by name: other methods
 * than LoRA, trained biases and whole modules, embeddings and convolutions, first values that change the base model.
 *
 * @param root a model, or the adapters that it has already: the new one is then added to them, not active
 * @param config `adapter_config.json`, parsed or not
 * @param state `adapter_model.safetensors`
 * @throws CheckpointError where something is not supported, or configuration, tensors and model do not fit each other;
 * the model is as it was then
 */
export async function fromPeft(root: Module | LoraAdapters, config: unknown, state: StateDict, { name = 'default' }: FromPeftOptions = {}): Promise<LoraAdapters> {
  const known = readPeftConfig(config);
  const own = withoutPrefix(state);
  const layers = fittingLayers(root instanceof LoraAdapters ? root.root : root, known, own);
  const options = { ...settingsOfPeft(known), init: 'zeros' as const, targets: (path: string) => layers.has(path) };
  if (root instanceof LoraAdapters) {
    root.add(name, options);
    return loaded(root, own, name, () => root.delete(name));
  }
  const adapters = injectLora(root, { ...options, name });
  return loaded(adapters, own, name, () => adapters.remove());
}

async function loaded(adapters: LoraAdapters, state: StateDict, name: string, undo: () => void): Promise<LoraAdapters> {
  try {
    await adapters.load(state, name);
  } catch (error) {
    undo();
    throw error;
  }
  return adapters;
}

/** The layers that the file has tensors for, all of which the model has and the configuration means. */
function fittingLayers(root: Module, config: PeftConfig, state: StateDict): ReadonlySet<string> {
  const linear = [...root.namedModules()].filter(([, module]) => module instanceof Linear).map(([path]) => path);
  const layers = layersIn(state);
  const foreign = layers.filter((path) => !linear.includes(path));
  if (foreign.length > 0) throw new CheckpointError(`the model has no linear layers ${some(foreign)}, which the adapter is on. It has: ${some(linear, 8)}. A teacher's adapter is fitted to a pruned model by remapPeft.`);
  const untargeted = layers.filter((path) => !isTargeted(config, path));
  if (untargeted.length > 0) throw new CheckpointError(`the adapter file has tensors for ${some(untargeted)}, which its configuration does not target: the two do not belong together`);
  const absent = saysWhichLayers(config) ? linear.filter((path) => isTargeted(config, path) && !layers.includes(path)) : [];
  if (absent.length > 0) throw new CheckpointError(`the adapter's configuration targets ${some(absent)}, for which its file has no tensors: the model is not the one it was trained on, or the file is cut`);
  return new Set(layers);
}

function some(paths: readonly string[], most = 4): string {
  return paths.slice(0, most).join(', ') + (paths.length > most ? ` and ${paths.length - most} more` : '');
}

import { CheckpointError } from '@tinyfusion/core';
import type { StateDict, TensorRecord } from './state-dict.js';

/** Names that training scripts keep the weights under, the averaged ones first, as upstream's `find_model` takes them. */
const weightNames = ['ema', 'model_ema', 'ema_state_dict', 'model', 'state_dict', 'model_state_dict', 'module'];

/** What follows on `model.` where that is part of a tensor's own name: in single-file diffusion models, beside their autoencoder and text encoders, and in language models. */
const ownModelNames = ['diffusion_model.', 'embed_tokens.'];

/** What wraps a model for training puts before all of its names: DataParallel and its kin, torch.compile. */
const wrappers = ['module.', '_orig_mod.'];

/**
 * The state dict inside a checkpoint of a training run, `{ model, ema, opt, args, … }`: the averaged weights where there
 * are any, else the model's; a plain state dict stays what it is. Numbers alone, as an average's decay, are no weights. The
 * names that DistributedDataParallel (`module.`) and torch.compile (`_orig_mod.`) put before all others are taken off.
 *
 * @param which a key to take instead, e.g. `'model'`
 * @throws CheckpointError where the asked-for key holds no tensor, with those that do
 */
export function weightsOf(checkpoint: StateDict, which?: string): StateDict {
  const { metadata } = checkpoint;
  const under = (prefix: string): Map<string, TensorRecord> => new Map([...checkpoint.tensors].flatMap(([name, record]) => (name.startsWith(`${prefix}.`) ? [[name.slice(prefix.length + 1), record] as const] : [])));
  if (which !== undefined) {
    const tensors = under(which);
    if (tensors.size === 0) throw new CheckpointError(`the checkpoint has no tensors under ${JSON.stringify(which)}; it has them under: ${[...new Set([...checkpoint.tensors.keys()].map((name) => name.split('.')[0]))].slice(0, 12).join(', ')}`);
    return { tensors: unwrapped(tensors), metadata };
  }
  for (const name of weightNames) {
    const tensors = under(name);
    if (name === 'model' && ownModelNames.some((own) => [...tensors.keys()].some((key) => key.startsWith(own)))) continue;
    if ([...tensors.values()].some(({ shape }) => shape.length > 0)) return { tensors: unwrapped(tensors), metadata };
  }
  const tensors = unwrapped(checkpoint.tensors);
  return tensors === checkpoint.tensors ? checkpoint : { tensors, metadata };
}

/** Tensors without the wrappers that all of their names begin with. */
function unwrapped(tensors: ReadonlyMap<string, TensorRecord>): ReadonlyMap<string, TensorRecord> {
  const names = [...tensors.keys()];
  const wrapper = wrappers.find((own) => names.length > 0 && names.every((name) => name.startsWith(own) && name.length > own.length));
  return wrapper === undefined ? tensors : unwrapped(new Map([...tensors].map(([name, record]) => [name.slice(wrapper.length), record])));
}

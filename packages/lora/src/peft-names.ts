import { CheckpointError } from '@tinyfusion/core';
import type { StateDict, TensorRecord } from '@tinyfusion/weights';

/** What PEFT puts before the paths of a model. */
export const PEFT_PREFIX = 'base_model.model.';

/** The path of the layer and the tensor's own name, or nothing where it is no tensor of a linear layer's adapter. */
function adapterTensor(name: string): { path: string; tensor: string } | undefined {
  const match = /^(.+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector)$/.exec(name);
  return match === null ? undefined : { path: match[1]!, tensor: match[2]! };
}

/**
 * The same tensors without PEFT's prefix, where they have it.
 * @throws CheckpointError where there are others than those of LoRA on linear layers
 */
export function withoutPrefix(state: StateDict): StateDict {
  const tensors = new Map<string, TensorRecord>();
  const others: string[] = [];
  for (const [name, record] of state.tensors) {
    const own = name.startsWith(PEFT_PREFIX) ? name.slice(PEFT_PREFIX.length) : name;
    if (adapterTensor(own) === undefined) others.push(name);
    tensors.set(own, record);
  }
  if (others.length > 0) throw new CheckpointError(`the adapter file has ${others.length} tensors that are not LoRA's on linear layers: ${others.slice(0, 4).join(', ')}${others.length > 4 ? ' …' : ''}; embeddings, biases and whole modules are not supported`);
  if (tensors.size === 0) throw new CheckpointError('the adapter file has no tensors');
  return { tensors, metadata: state.metadata };
}

/** Paths of the layers that a state without prefix has tensors for. */
export function layersIn(state: StateDict): string[] {
  return [...new Set([...state.tensors.keys()].map((name) => adapterTensor(name)!.path))];
}

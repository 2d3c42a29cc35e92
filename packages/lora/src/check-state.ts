import { CheckpointError } from '@tinyfusion/core';
import type { StateDict } from '@tinyfusion/weights';

/** @throws CheckpointError where the state's names or shapes are not those of an adapter */
export function checkState(own: ReadonlyMap<string, { readonly shape: readonly number[] }>, state: StateDict): void {
  for (const [name, { shape }] of own) {
    const record = state.tensors.get(name);
    if (record === undefined || String(record.shape) !== String(shape)) throw new CheckpointError(`the adapter file has ${record === undefined ? 'no' : `[${record.shape.join(', ')}] for`} ${name}, expected [${shape.join(', ')}]. Inject with the rank and targets that it was trained with.`);
  }
  const more = [...state.tensors.keys()].filter((name) => !own.has(name));
  if (more.length > 0) throw new CheckpointError(`the adapter file has ${more.length} tensors that the adapter has no place for: ${more.slice(0, 4).join(', ')}${more.length > 4 ? ' …' : ''}. Inject with the targets that it was trained with.`);
}

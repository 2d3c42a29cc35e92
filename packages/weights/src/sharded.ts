import { CheckpointError } from '@tinyfusion/core';
import { readSafetensors } from './safetensors.js';
import type { Source } from './source.js';
import type { StateDict, TensorRecord } from './state-dict.js';

/**
 * A safetensors checkpoint in several files, by its index (`model.safetensors.index.json`).
 *
 * @param index the text of the index
 * @param name what it is called, for messages
 * @param open gives a source for the name of a file beside the index
 * @throws CheckpointError where the index is none, names a file outside of its folder, or a tensor that is not there
 */
export async function readShardedSafetensors(index: string, name: string, open: (file: string) => Promise<Source>): Promise<StateDict> {
  let places: Map<string, unknown>;
  try {
    const { weight_map: map } = JSON.parse(index) as { weight_map?: unknown };
    if (typeof map !== 'object' || map === null || Array.isArray(map)) throw new TypeError('it has no weight_map');
    places = new Map(Object.entries(map));
  } catch (cause) {
    throw new CheckpointError(`${name} is no index of a sharded checkpoint: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  const shards = new Map<string, StateDict>();
  for (const file of new Set(places.values())) {
    if (typeof file !== 'string' || /[/\\]|^\.+$/.test(file)) throw new CheckpointError(`${name} names ${JSON.stringify(file)}, expected files beside it`);
    shards.set(file, await readSafetensors(await open(file)));
  }
  const tensors = new Map<string, TensorRecord>();
  for (const [tensor, file] of places) {
    const record = shards.get(file as string)!.tensors.get(tensor);
    if (record === undefined) throw new CheckpointError(`${name} says that ${JSON.stringify(tensor)} is in ${String(file)}, where it is not; fetch the files again`);
    tensors.set(tensor, record);
  }
  return { tensors, metadata: new Map([...shards.values()].flatMap((shard) => [...shard.metadata])) };
}

import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import { type StateDict, type TensorRecord, encodeFloat32, toFloat32 } from '@tinyfusion/weights';
import { type LayerSettings, settingsAt } from './lora-options.js';
import { readPeftConfig, settingsOfPeft } from './peft-config.js';
import { layersIn, withoutPrefix } from './peft-names.js';

/** One adapter in PEFT's files, and how much of it. */
export interface SavedAdapter {
  /** `adapter_config.json`, parsed or not. */
  config: unknown;
  /** `adapter_model.safetensors`. */
  state: StateDict;
  /** Default 1. */
  weight?: number;
}

/**
 * A checkpoint with adapters in its weights, W + Σ wᵢ ΔWᵢ, without a model: each is added when its tensor is read, so the
 * file may be larger than memory. Whatever the weights are called, the adapters' layers have to be called so. What is
 * merged is float16 where it was, else float32.
 *
 * @throws ArgumentError where a weight is no finite number; CheckpointError where an adapter is not supported (see
 * `fromPeft`) or does not fit, and on reading where float16 cannot hold a sum
 */
export function mergeIntoState(state: StateDict, adapters: readonly SavedAdapter[]): StateDict {
  const additions = new Map<string, Addition[]>();
  for (const { config, state: saved, weight = 1 } of adapters) {
    if (!Number.isFinite(weight)) throw new ArgumentError('mergeIntoState: weight', weight, 'a finite number');
    const settings = settingsOfPeft(readPeftConfig(config));
    const own = withoutPrefix(saved);
    const layers = layersIn(own);
    const foreign = layers.filter((path) => !state.tensors.has(`${path}.weight`));
    if (foreign.length > 0) throw new CheckpointError(`the checkpoint has no weights of ${foreign.slice(0, 4).join(', ')}${foreign.length > 4 ? ` and ${foreign.length - 4} more` : ''}, which the adapter is on: it was trained on another model, or under other names. A teacher's adapter is fitted to a pruned model by remapPeft.`);
    for (const path of layers) {
      const name = `${path}.weight`;
      additions.set(name, [...(additions.get(name) ?? []), fitted(path, state.tensors.get(name)!, own, settingsAt(settings, path), weight)]);
    }
  }
  const tensors = new Map<string, TensorRecord>();
  for (const [name, record] of state.tensors) {
    const added = additions.get(name);
    tensors.set(name, added === undefined ? record : merged(name, record, added));
  }
  return { ...state, tensors };
}

interface Addition {
  a: TensorRecord;
  b: TensorRecord;
  /** DoRA's. */
  magnitude: TensorRecord | undefined;
  scale: number;
  weight: number;
}

/** What an adapter adds to one layer. */
function fitted(path: string, { shape }: TensorRecord, own: StateDict, { rank, scale, dora }: LayerSettings, weight: number): Addition {
  const [rows, columns] = shape as [number, number];
  const need = (tensor: string, expected: readonly number[]): TensorRecord => {
    const record = own.tensors.get(`${path}.${tensor}`);
    if (record === undefined || String(record.shape) !== String(expected)) throw new CheckpointError(`the adapter has ${record === undefined ? 'no' : `[${record.shape.join(', ')}] for`} ${path}.${tensor}, expected [${expected.join(', ')}] for a weight of [${shape.join(', ')}]`);
    return record;
  };
  return { a: need('lora_A.weight', [rank, columns]), b: need('lora_B.weight', [rows, rank]), magnitude: dora ? need('lora_magnitude_vector', [rows]) : undefined, scale, weight };
}

function merged(name: string, record: TensorRecord, additions: readonly Addition[]): TensorRecord {
  const dtype = record.dtype === 'F16' ? 'F16' : 'F32';
  const read = async (): Promise<Uint8Array> => {
    const weight = await toFloat32(record);
    const sum = Float32Array.from(weight);
    for (const addition of additions) await add(sum, weight, addition);
    return encodeFloat32(sum, dtype, name);
  };
  return { dtype, shape: record.shape, read };
}

/** sum += w·ΔW, row by row: ΔW = s·BA, with DoRA m/‖W + s·BA‖ · (W + s·BA) − W. */
async function add(sum: Float32Array, base: Float32Array, { a: aRecord, b: bRecord, magnitude, scale, weight }: Addition): Promise<void> {
  const [a, b, m] = await Promise.all([toFloat32(aRecord), toFloat32(bRecord), magnitude === undefined ? undefined : toFloat32(magnitude)]);
  const [rank, columns] = aRecord.shape as [number, number];
  const low = new Float64Array(columns);
  for (let row = 0; row < bRecord.shape[0]!; row++) {
    low.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = scale * b[row * rank + k]!;
      for (let i = 0; i < columns; i++) low[i]! += factor * a[k * columns + i]!;
    }
    const start = row * columns;
    let factor = 1;
    if (m !== undefined) {
      let square = 0;
      for (let i = 0; i < columns; i++) square += (base[start + i]! + low[i]!) ** 2;
      factor = square === 0 ? 0 : m[row]! / Math.sqrt(square);
    }
    for (let i = 0; i < columns; i++) sum[start + i]! += weight * (factor * low[i]! + (factor - 1) * base[start + i]!);
  }
}

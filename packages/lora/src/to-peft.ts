import { writableTensor, writeSafetensors } from '@tinyfusion/weights';
import type { LoraAdapters } from './lora-adapters.js';
import type { PeftConfig } from './peft-config.js';
import { PEFT_PREFIX } from './peft-names.js';
import { describeTargets } from './peft-targets.js';

/** Options of {@link toPeft}. */
export interface ToPeftOptions {
  /** Which adapter. Default: the only one. */
  name?: string;
  /** `base_model_name_or_path`: what the adapter was trained on. Default: none. */
  baseModel?: string;
  /** Type of the stored values. Default `'F32'`. */
  dtype?: 'F32' | 'F16';
}

/** An adapter as PEFT saves it. */
export interface PeftFiles {
  /** To write as JSON to `adapter_config.json`. */
  config: PeftConfig;
  /** Bytes of `adapter_model.safetensors`. */
  weights: Uint8Array<ArrayBuffer>;
}

/**
 * One adapter in PEFT's files, which `PeftModel.from_pretrained` reads where the model has the same paths.
 * @throws CheckpointError where a finite value is beyond the range of F16, which was asked for
 */
export async function toPeft(adapters: LoraAdapters, { name, baseModel, dtype = 'F32' }: ToPeftOptions = {}): Promise<PeftFiles> {
  const { rank, alpha, dropout, rankPattern, alphaPattern, rsLora, dora } = adapters.settings(name);
  const config: PeftConfig = {
    peft_type: 'LORA',
    task_type: null,
    base_model_name_or_path: baseModel ?? null,
    inference_mode: true,
    r: rank,
    lora_alpha: alpha,
    lora_dropout: dropout,
    target_modules: describeTargets(adapters.root, adapters.pathsOf(name)),
    rank_pattern: { ...rankPattern },
    alpha_pattern: { ...alphaPattern },
    use_rslora: rsLora,
    use_dora: dora,
    bias: 'none',
    init_lora_weights: true,
    fan_in_fan_out: false,
    modules_to_save: null,
    layers_to_transform: null,
    layers_pattern: null,
  };
  const tensors = await Promise.all(Array.from(adapters.state(name), async ([key, variable]) => [PEFT_PREFIX + key, writableTensor((await variable.data()) as Float32Array, variable.shape, dtype, key)] as const));
  return { config, weights: writeSafetensors(tensors, [['format', 'pt']]) };
}

import { CheckpointError } from '@tinyfusion/core';
import { type LoraSettings, settingsOf } from './lora-options.js';

/** What `adapter_config.json` says of an adapter: the fields of PEFT's `LoraConfig` that we write, and read. */
export interface PeftConfig {
  peft_type: 'LORA';
  task_type: string | null;
  base_model_name_or_path: string | null;
  inference_mode: boolean;
  r: number;
  lora_alpha: number;
  lora_dropout: number;
  /** Paths or their ends, a pattern for whole paths, or `'all-linear'`. */
  target_modules: string[] | string | null;
  /** Like `target_modules`; not written, as PEFT before 0.14 stumbles over it. */
  exclude_modules?: string[] | string | null;
  rank_pattern: Record<string, number>;
  alpha_pattern: Record<string, number>;
  use_rslora: boolean;
  use_dora: boolean;
  bias: 'none';
  init_lora_weights: boolean | string;
  fan_in_fan_out: boolean;
  modules_to_save: null;
  layers_to_transform: number | number[] | null;
  layers_pattern: string | string[] | null;
}

/** Fields without a say in what a saved adapter computes. */
const harmless = new Set(['auto_mapping', 'base_model_name_or_path', 'revision', 'inference_mode', 'task_type', 'peft_version', 'runtime_config', 'layers_to_transform', 'layers_pattern', 'megatron_core', 'qalora_group_size', 'loftq_config', 'eva_config', 'corda_config', 'lora_ga_config', 'ensure_weight_tying']);

/** First values that leave the base model's weights alone; others (PiSSA, OLoRA, CorDA, LoftQ …) mean a changed base model. */
const plainInits: readonly unknown[] = [true, false, null, undefined, 'gaussian', 'eva', 'orthogonal'];

/**
 * Checks a configuration that PEFT wrote, of any version; fields that are absent have PEFT's defaults.
 * @param value parsed JSON, or its text
 * @throws CheckpointError that names every field which asks for what is not supported
 */
export function readPeftConfig(value: unknown): PeftConfig {
  const c = objectOf(value);
  if (c['peft_type'] !== 'LORA') throw new CheckpointError(`the adapter's peft_type is ${JSON.stringify(c['peft_type'])}, expected "LORA"; other methods are not supported`);
  const refused: string[] = [];
  if (!plainInits.includes(c['init_lora_weights'])) refused.push('init_lora_weights');
  if (c['bias'] !== undefined && c['bias'] !== 'none') refused.push('bias');
  const known = new Set(['peft_type', 'bias', 'init_lora_weights', 'r', 'lora_alpha', 'lora_dropout', 'target_modules', 'exclude_modules', 'rank_pattern', 'alpha_pattern', 'use_rslora', 'use_dora']);
  // whatever a newer PEFT adds is off where it is empty
  for (const [field, own] of Object.entries(c)) if (!known.has(field) && !harmless.has(field) && !isEmpty(own)) refused.push(field);
  if (refused.length > 0) throw new CheckpointError(`the adapter needs what is not supported: ${refused.map((field) => `${field} = ${JSON.stringify(c[field])}`).join(', ')}. In PEFT, merge it into the model, or convert it to a plain LoRA.`);
  const config: PeftConfig = {
    peft_type: 'LORA',
    task_type: textOrNull(c, 'task_type'),
    base_model_name_or_path: textOrNull(c, 'base_model_name_or_path'),
    inference_mode: flag(c, 'inference_mode'),
    r: number(c, 'r', 8),
    lora_alpha: number(c, 'lora_alpha', 8),
    lora_dropout: number(c, 'lora_dropout', 0),
    target_modules: names(c, 'target_modules'),
    exclude_modules: names(c, 'exclude_modules'),
    rank_pattern: numbers(c, 'rank_pattern'),
    alpha_pattern: numbers(c, 'alpha_pattern'),
    use_rslora: flag(c, 'use_rslora'),
    use_dora: flag(c, 'use_dora'),
    bias: 'none',
    init_lora_weights: true,
    fan_in_fan_out: false,
    modules_to_save: null,
    layers_to_transform: indices(c, 'layers_to_transform'),
    layers_pattern: names(c, 'layers_pattern'),
  };
  settingsOfPeft(config);
  return config;
}

/** Our names for it. @throws CheckpointError where a number is out of range */
export function settingsOfPeft({ r, lora_alpha, lora_dropout, rank_pattern, alpha_pattern, use_rslora, use_dora }: PeftConfig): LoraSettings {
  try {
    return settingsOf({ rank: r, alpha: lora_alpha, dropout: lora_dropout, rankPattern: rank_pattern, alphaPattern: alpha_pattern, rsLora: use_rslora, dora: use_dora });
  } catch (cause) {
    throw new CheckpointError(`the adapter's configuration is out of range: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

type Fields = Record<string, unknown>;

function objectOf(value: unknown): Fields {
  let parsed = value;
  try {
    if (typeof value === 'string') parsed = JSON.parse(value);
  } catch (cause) {
    throw new CheckpointError('the adapter configuration is no JSON', { cause });
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw new CheckpointError('the adapter configuration is no JSON object');
  return parsed as Fields;
}

function isEmpty(value: unknown): boolean {
  return value === null || value === false || (typeof value === 'object' && Object.keys(value).length === 0);
}

function wrong(fields: Fields, field: string, expected: string): never {
  throw new CheckpointError(`the adapter configuration's ${field} is ${JSON.stringify(fields[field])}, expected ${expected}`);
}

function textOrNull(fields: Fields, field: string): string | null {
  const value = fields[field] ?? null;
  return value === null || typeof value === 'string' ? value : wrong(fields, field, 'text or null');
}

function flag(fields: Fields, field: string): boolean {
  const value = fields[field] ?? false;
  return typeof value === 'boolean' ? value : wrong(fields, field, 'true or false');
}

function number(fields: Fields, field: string, otherwise: number): number {
  const value = fields[field] ?? otherwise;
  return typeof value === 'number' ? value : wrong(fields, field, 'a number');
}

function names(fields: Fields, field: string): string[] | string | null {
  const value = fields[field] ?? null;
  if (value === null || typeof value === 'string') return value;
  return Array.isArray(value) && value.every((v) => typeof v === 'string') ? value : wrong(fields, field, 'names, a pattern, or null');
}

function indices(fields: Fields, field: string): number | number[] | null {
  const value = fields[field] ?? null;
  if (value === null || Number.isInteger(value)) return value as number | null;
  return Array.isArray(value) && value.every((v) => Number.isInteger(v)) ? (value as number[]) : wrong(fields, field, 'indices of layers, or null');
}

function numbers(fields: Fields, field: string): Record<string, number> {
  const value = fields[field] ?? {};
  if (typeof value !== 'object' || Array.isArray(value)) wrong(fields, field, 'numbers by pattern');
  if (!Object.values(value).every((v) => typeof v === 'number')) wrong(fields, field, 'numbers by pattern');
  return value as Record<string, number>;
}

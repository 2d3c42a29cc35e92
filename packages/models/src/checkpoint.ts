import { ArgumentError, CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import { type Init, MODEL_KEY, type ToSafetensorsOptions, storedConfig, toSafetensors } from '@tinyfusion/nn';
import type { StateDict } from '@tinyfusion/weights';
import { type BlockPart, DiT, type DiTConfig, LinearBlock } from './dit.js';
import { type LoadOptions, blank, filled } from './filled.js';
import { MAR, type MARConfig } from './mar/mar.js';
import { checkStored } from './shapes.js';
import { SiT } from './sit.js';
import { AutoencoderKL, type AutoencoderConfig } from './vae.js';

/** Every model that can be stored. */
export type StoredModel = DiT | SiT | MAR | AutoencoderKL;

/** The name of a model's class in checkpoints. */
function typeOf(model: StoredModel): string {
  return model instanceof SiT ? 'SiT' : model instanceof DiT ? 'DiT' : model instanceof MAR ? 'MAR' : 'AutoencoderKL';
}

/** A model as a safetensors file from which alone {@link loadModel} builds it again, shallow or not. */
export async function saveModel(model: StoredModel, options: Omit<ToSafetensorsOptions, 'type' | 'config'> = {}): Promise<Uint8Array<ArrayBuffer>> {
  return toSafetensors(model, { ...options, type: typeOf(model), config: configOf(model) });
}

/** The configuration as the model is now: pruning has changed its depth, and what is left of blocks. */
export function configOf<M extends StoredModel>(model: M): M['config'] {
  if (model instanceof MAR) return { ...model.config, encoderDepth: model.encoder_blocks.length, decoderDepth: model.decoder_blocks.length };
  if (!(model instanceof DiT)) return model.config;
  const { thinned: _, ...config } = model.config;
  const thinned = Object.fromEntries(model.blocks.flatMap((block, i) => (partOf(block) === undefined ? [] : [[i, partOf(block)!]])));
  return { ...config, depth: model.blocks.length, ...(Object.keys(thinned).length > 0 ? { thinned } : {}) };
}

/** What is left of a block, where pruning has taken from it. */
export function partOf(block: DiT['blocks'][number]): BlockPart | undefined {
  if (block instanceof LinearBlock) return 'linear';
  return block.attn === undefined ? 'mlp' : block.mlp === undefined ? 'attention' : undefined;
}

/**
 * A model of the same shape but other depths, one a stack, its weights to be loaded.
 * @param thinned blocks of which only a part is there, see `DiTConfig`; not for MAR. Default: none
 */
export function withDepths<M extends DiT | SiT | MAR>(model: M, depths: readonly number[], thinned?: DiTConfig['thinned']): M {
  const init = { init: 'zeros' } as const;
  if (model instanceof MAR && Object.keys(thinned ?? {}).length > 0) throw new ArgumentError('withDepths: thinned', thinned, 'nothing for a MAR, whose blocks stay whole');
  if (model instanceof MAR) return new MAR({ ...model.config, encoderDepth: depths[0]!, decoderDepth: depths[1]! }, init) as M;
  const config = { ...model.config, depth: depths[0]!, thinned };
  return (model instanceof SiT ? new SiT(config, init) : new DiT(config, init)) as M;
}

const builders: Readonly<Record<string, (config: never, init: Init) => StoredModel>> = {
  DiT: (config: DiTConfig, init) => new DiT(config, { init }),
  SiT: (config: DiTConfig, init) => new SiT(config, { init }),
  MAR: (config: MARConfig, init) => new MAR(config, { init }),
  AutoencoderKL: (config: AutoencoderConfig, init) => new AutoencoderKL(config, { init }),
};

/**
 * The model of a checkpoint of ours, whatever it is, from the checkpoint alone.
 * @throws CheckpointError where it names no model, its configuration is none or not that of its tensors, or these are
 * missing, unexpected or wrongly shaped
 */
export async function loadModel(state: StateDict, { dtype, ...task }: LoadOptions = {}): Promise<StoredModel> {
  let type: unknown;
  try {
    type = (JSON.parse(state.metadata.get(MODEL_KEY) ?? '{}') as { type?: unknown }).type;
  } catch {
    type = undefined; // storedConfig says what is wrong
  }
  const build = typeof type === 'string' && Object.hasOwn(builders, type) ? builders[type] : undefined;
  if (build === undefined || typeof type !== 'string') {
    if (type === undefined) storedConfig(state, 'DiT, SiT, MAR or AutoencoderKL');
    throw new CheckpointError(`the checkpoint holds ${JSON.stringify(type)}, expected one of ${Object.keys(builders).join(', ')}`);
  }
  const init = blank(dtype);
  const config = storedConfig(state, type);
  checkStored(type, config, state);
  return filled(build(config as never, init), state, task);
}

/** A DiT from a checkpoint of ours alone, shallow ones included. @throws CheckpointError as {@link loadModel}, and where it holds something else */
export async function loadDiT(state: StateDict, options: LoadOptions = {}): Promise<DiT> {
  storedConfig(state, 'DiT');
  return (await loadModel(state, options)) as DiT;
}

/** An autoencoder from a checkpoint of ours alone. Throws as {@link loadDiT} does. */
export async function loadAutoencoderKL(state: StateDict, options: LongTaskOptions = {}): Promise<AutoencoderKL> {
  storedConfig(state, 'AutoencoderKL');
  return (await loadModel(state, options)) as AutoencoderKL;
}

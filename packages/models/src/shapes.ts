import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import type { StateDict, TensorRecord } from '@tinyfusion/weights';
import { type DiTConfig, checkDiTConfig } from './dit.js';
import { type MARConfig, checkMARConfig } from './mar/mar.js';
import { type AutoencoderConfig, checkAutoencoderConfig } from './vae.js';

type Tensors = ReadonlyMap<string, TensorRecord>;

/** Number of blocks under a name, as many as have tensors. */
export function depthOf(tensors: Tensors, stack: string): number {
  const prefix = `${stack}.`;
  const indices = new Set<string>();
  for (const name of tensors.keys()) {
    const index = name.startsWith(prefix) ? /^\d+(?=\.)/.exec(name.slice(prefix.length)) : null;
    if (index !== null) indices.add(index[0]);
  }
  return indices.size;
}

/**
 * What a DiT's or SiT's tensors say of its configuration; nothing where they are not there.
 * @param known `classDropoutProb`: 0 where the last class is none of "no class". Default: upstream's 0.1
 */
export function ditShape({ tensors }: StateDict, { classDropoutProb = 0.1 }: Pick<Partial<DiTConfig>, 'classDropoutProb'> = {}): Partial<DiTConfig> {
  const [width, inChannels, patchSize] = tensors.get('x_embedder.proj.weight')?.shape ?? [];
  const tokens = tensors.get('pos_embed')?.shape[1];
  const rows = tensors.get('y_embedder.embedding_table.weight')?.shape[0];
  const out = tensors.get('final_layer.linear.weight')?.shape[0];
  const depth = depthOf(tensors, 'blocks');
  if (width === undefined || inChannels === undefined || patchSize === undefined || tokens === undefined || rows === undefined || out === undefined || depth === 0) return {};
  return { hiddenSize: width, inChannels, patchSize, depth, inputSize: Math.round(Math.sqrt(tokens)) * patchSize, numClasses: classDropoutProb === 0 ? rows : rows - 1, learnSigma: out === 2 * inChannels * patchSize ** 2 };
}

/** The same of a MAR. @param patchSize which its tensors do not tell */
export function marShape({ tensors }: StateDict, patchSize: number): Partial<MARConfig> {
  const size = (tensor: string, axis: number): number => tensors.get(tensor)?.shape[axis] ?? Number.NaN;
  const tokens = size('diffusion_pos_embed_learned', 1);
  const positions = size('encoder_pos_embed_learned', 1);
  const channels = size('z_proj.weight', 1);
  const found: Partial<MARConfig> = {
    inputSize: Math.round(Math.sqrt(tokens)) * patchSize,
    inChannels: channels / patchSize ** 2,
    encoderWidth: size('z_proj.weight', 0),
    encoderDepth: depthOf(tensors, 'encoder_blocks'),
    decoderWidth: size('decoder_embed.weight', 0),
    decoderDepth: depthOf(tensors, 'decoder_blocks'),
    numClasses: size('class_emb.weight', 0),
    bufferSize: positions - tokens,
    headDepth: depthOf(tensors, 'diffloss.net.res_blocks'),
    headWidth: size('diffloss.net.input_proj.weight', 0),
  };
  return Object.values(found).some((value) => Number.isNaN(value)) ? {} : found;
}

/** The same of an autoencoder, in latent diffusion's names. */
export function autoencoderShape({ tensors }: Pick<StateDict, 'tensors'>): Partial<AutoencoderConfig> {
  const [channels, inChannels] = tensors.get('encoder.conv_in.weight')?.shape ?? [];
  const latentChannels = tensors.get('post_quant_conv.weight')?.shape[0];
  const levels = Array.from({ length: depthOf(tensors, 'encoder.down') }, (_, i) => i);
  if (channels === undefined || inChannels === undefined || latentChannels === undefined || levels.length === 0) return {};
  const attention = (side: string): number[] => levels.filter((i) => tensors.has(`${side}.${i}.attn.0.q.weight`));
  return {
    inChannels,
    channels,
    channelMultipliers: levels.map((i) => (tensors.get(`encoder.down.${i}.block.0.conv2.weight`)?.shape[0] ?? channels) / channels),
    numResBlocks: depthOf(tensors, 'encoder.down.0.block'),
    latentChannels,
    encoderAttentionLevels: attention('encoder.down'),
    decoderAttentionLevels: attention('decoder.up'),
  };
}

/** How a family's configuration is checked. */
interface Family {
  check(config: never): void;
  /** What tensors say of a configuration that is well formed. */
  shape(state: StateDict, config: never): object;
}

const dit: Family = { check: checkDiTConfig, shape: ditShape };

const families: Readonly<Record<string, Family>> = {
  DiT: dit,
  SiT: dit,
  MAR: { check: checkMARConfig, shape: (state, { patchSize }: MARConfig) => marShape(state, patchSize) },
  AutoencoderKL: { check: checkAutoencoderConfig, shape: autoencoderShape },
};

/**
 * Whether a checkpoint's own configuration is one, and that of its tensors, before memory is taken for it; a few blocks may
 * be missing.
 * @throws CheckpointError where it is not
 */
export function checkStored(type: string, config: object, state: StateDict): void {
  const { check, shape } = families[type]!;
  ofCheckpoint(type, () => check(config as never));
  const found = Object.entries(shape(state, config as never));
  if (found.length === 0) throw new CheckpointError(`the checkpoint does not fit ${type}: tensors are missing that every ${type} has. It has: ${[...state.tensors.keys()].slice(0, 6).join(', ') || 'none'}`);
  for (const [name, value] of found) {
    const own = (config as Record<string, unknown>)[name] ?? []; // levels of attention may be left out
    if (String(own) === String(value)) continue;
    // where some blocks are missing, or too many, loading lists their names
    if (/depth$/i.test(name) && (own as number) <= 2 * (value as number)) continue;
    throw new CheckpointError(`the checkpoint does not fit ${type}: its configuration says ${name} ${JSON.stringify(own)}, and its tensors say ${JSON.stringify(value)}`);
  }
  checkMlps(type, config, state);
}

/** @throws CheckpointError where blocks' MLPs are of another width than the configuration says, which a ratio alone does not tell */
export function checkMlps(type: string, config: object, { tensors }: StateDict): void {
  const { hiddenSize, depth, thinned, encoderWidth, decoderWidth, mlpRatio } = config as Partial<DiTConfig & MARConfig>;
  const whole = Array.from({ length: depth ?? 0 }, (_, i) => thinned?.[i]).some((part) => part === undefined || part === 'mlp');
  const stacks = hiddenSize === undefined ? [['encoder_blocks', encoderWidth], ['decoder_blocks', decoderWidth]] as const : whole ? [['blocks', hiddenSize]] as const : [];
  for (const [stack, width] of stacks) {
    if (width === undefined || mlpRatio === undefined) continue;
    const rows = [...tensors].find(([name]) => name.startsWith(`${stack}.`) && name.endsWith('.mlp.fc1.weight'))?.[1].shape[0];
    const expected = Math.floor(width * mlpRatio);
    if (rows !== expected) throw new CheckpointError(`the checkpoint does not fit ${type}: its configuration says mlpRatio ${mlpRatio}, which makes MLPs of ${expected}, and its tensors ${rows === undefined ? 'have none' : `say ${rows}`}`);
  }
}

/**
 * Runs what refuses a configuration, which is the checkpoint's fault but for what the caller changed of it.
 * @throws CheckpointError in the place of ArgumentError
 */
export function ofCheckpoint<T>(type: string, run: () => T, changes: object = {}): T {
  try {
    return run();
  } catch (error) {
    if (!(error instanceof ArgumentError) || Object.hasOwn(changes, error.argument.split('.')[1] ?? '')) throw error;
    throw new CheckpointError(`the checkpoint's configuration makes no ${type}: ${error.message}`, { cause: error });
  }
}

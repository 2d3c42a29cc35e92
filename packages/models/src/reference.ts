import { CheckpointError } from '@tinyfusion/core';
import { MODEL_KEY, storedConfig } from '@tinyfusion/nn';
import type { StateDict, TensorRecord } from '@tinyfusion/weights';
import { fromDiffusersNames, toDiffusersNames } from './diffusers.js';
import { ditFromDiffusers, ditToDiffusers, isDiffusersDiT } from './diffusers-dit.js';
import type { DiTConfig } from './dit.js';
import { type LoadOptions, blank, filled } from './filled.js';
import type { MARConfig } from './mar/mar.js';
import { type ChangesOf, type ModelOf, createModel, ditConfig, marConfig, presets, unknown } from './presets.js';
import { AutoencoderKL, type AutoencoderConfig } from './vae.js';

/**
 * A model of a reference's checkpoint: the preset of that name, with what the tensors' shapes say otherwise (classes,
 * image size, depth), so that fine-tuned and shallow ones load too.
 *
 * @param name one of `presets`; it decides the family, and the number of heads, which no shape tells. In a checkpoint of
 * ours that keeps its own configuration, that one counts
 * @param given as `weightsOf` gives it, in upstream's names or, for a DiT, diffusers'
 * @throws ArgumentError where the name is unknown; CheckpointError that lists what does not fit, where the checkpoint is
 * of another width than the preset and `changes` has no number of heads, or where it says itself that it is of another family
 */
export async function loadReference<Name extends string>(name: Name, given: StateDict, { changes, dtype, ...task }: LoadReferenceOptions<Name> = {}): Promise<ModelOf<Name>> {
  if (!presets.includes(name)) unknown(name, presets);
  const state = isDiffusersDiT(given) ? ditFromDiffusers(given, { inputSize: (changes as Partial<DiTConfig> | undefined)?.inputSize ?? 32 }) : given;
  const found = isMar(name) ? marShape(name, state) : ditShape(state);
  const own = given.metadata.has(MODEL_KEY) ? storedConfig<object>(given, familyOf(name)) : undefined;
  if (own === undefined) requireHeads(name, found, changes ?? {});
  return filled(createModel(name, { init: blank(dtype), changes: { ...own, ...found, ...changes } as ChangesOf<Name> }), state, task);
}

/** Options of {@link loadReference}. */
export interface LoadReferenceOptions<Name extends string> extends LoadOptions {
  /** To the configuration, e.g. `{ numHeads: 4 }` of a model that is as wide as none of the published ones. */
  changes?: ChangesOf<Name> | undefined;
}

const isMar = (name: string): boolean => familyOf(name) === 'MAR';

/** What a preset is a size of. */
const familyOf = (name: string): string => /^(?:Tiny)?([^-]*)/.exec(name)![1]!;

/** A width tells the number of heads where it is that of the preset: published models of one width have as many. */
function requireHeads(name: string, found: Partial<DiTConfig & MARConfig>, changes: Partial<DiTConfig & MARConfig>): void {
  const shapeOf = (preset: string): Partial<DiTConfig & MARConfig> => (isMar(preset) ? marConfig(preset) : ditConfig(preset));
  const unlike = ([['hiddenSize', 'numHeads'], ['encoderWidth', 'encoderHeads'], ['decoderWidth', 'decoderHeads']] as const).find(([width, heads]) => found[width] !== undefined && found[width] !== shapeOf(name)[width] && changes[heads] === undefined);
  if (unlike === undefined) return;
  const [width, heads] = unlike;
  const asWide = presets.filter((preset) => familyOf(preset) === familyOf(name) && !preset.startsWith('Tiny') && shapeOf(preset)[width] === found[width] && shapeOf(preset).patchSize === (found.patchSize ?? shapeOf(name).patchSize));
  const asDeep = asWide.filter((preset) => shapeOf(preset).depth === found.depth && shapeOf(preset).encoderDepth === found.encoderDepth);
  const fitting = asDeep.length > 0 ? asDeep : asWide;
  const who = fitting.length > 0 ? `it fits ${fitting.join(', ')}; name it so, or give` : `as no published ${familyOf(name)} is; give`;
  throw new CheckpointError(`the checkpoint is ${found[width]} wide and ${name} ${shapeOf(name)[width]}: ${who} its number of heads, which its tensors do not tell (changes: { ${heads} }; --heads of a command)`);
}

/** What a DiT's or SiT's tensors say of its configuration; nothing where they are not there. */
function ditShape({ tensors }: StateDict): Partial<DiTConfig> {
  const [width, inChannels, patchSize] = tensors.get('x_embedder.proj.weight')?.shape ?? [];
  const tokens = tensors.get('pos_embed')?.shape[1];
  const rows = tensors.get('y_embedder.embedding_table.weight')?.shape[0];
  const out = tensors.get('final_layer.linear.weight')?.shape[0];
  const depth = depthOf(tensors, 'blocks');
  if (width === undefined || inChannels === undefined || patchSize === undefined || tokens === undefined || rows === undefined || out === undefined || depth === 0) return {};
  return { hiddenSize: width, inChannels, patchSize, depth, inputSize: Math.round(Math.sqrt(tokens)) * patchSize, numClasses: rows - 1, learnSigma: out === 2 * inChannels * patchSize ** 2 };
}

/** The same of a MAR. */
function marShape(name: string, { tensors }: StateDict): Partial<MARConfig> {
  const size = (tensor: string, axis: number): number | undefined => tensors.get(tensor)?.shape[axis];
  const tokens = size('diffusion_pos_embed_learned', 1);
  const positions = size('encoder_pos_embed_learned', 1);
  const channels = size('z_proj.weight', 1);
  if (tokens === undefined || positions === undefined || channels === undefined) return {};
  const { patchSize } = marConfig(name);
  const changes: Partial<Record<keyof MARConfig, number | undefined>> = {
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
  return Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined));
}

/** Number of blocks under a name. */
function depthOf(tensors: ReadonlyMap<string, TensorRecord>, stack: string): number {
  let depth = 0;
  for (const name of tensors.keys()) if (name.startsWith(`${stack}.`)) depth = Math.max(depth, 1 + Number.parseInt(name.slice(stack.length + 1), 10));
  return depth;
}

/** What published latents are multiplied by, by their channels: Stable Diffusion's, and MAR's KL-16. */
const scalingFactors: Readonly<Record<number, number>> = { 4: 0.18215, 16: 0.2325 };

/**
 * The autoencoder of a reference's checkpoint, in diffusers' names (`stabilityai/sd-vae-ft-ema`) or latent diffusion's
 * (MAR's `kl16.ckpt`); its shape is read off the tensors, and those of a discriminator are left out.
 *
 * @param options `scalingFactor`: default 0.18215 for 4 latent channels, 0.2325 for 16
 * @throws CheckpointError where it is no autoencoder, or tensors are missing or wrongly shaped
 */
export async function loadReferenceAutoencoder(state: StateDict, { scalingFactor }: { scalingFactor?: number } = {}): Promise<AutoencoderKL> {
  const own = new Map([...state.tensors].filter(([name]) => /^(encoder|decoder|quant_conv|post_quant_conv)\./.test(name)));
  const diffusers = [...own.keys()].some((name) => name.includes('.down_blocks.'));
  const levels = depthOf(own, diffusers ? 'encoder.down_blocks' : 'encoder.down');
  const named = diffusers ? fromDiffusersNames({ ...state, tensors: own }, levels) : { ...state, tensors: own };
  const { tensors } = named;
  const [channels, inChannels] = tensors.get('encoder.conv_in.weight')?.shape ?? [];
  const latentChannels = tensors.get('post_quant_conv.weight')?.shape[0];
  if (channels === undefined || inChannels === undefined || latentChannels === undefined || levels === 0) throw new CheckpointError(`the checkpoint is no autoencoder of latent diffusion: it has no encoder.conv_in or post_quant_conv. It has: ${[...state.tensors.keys()].slice(0, 6).join(', ')}`);
  const scale = scalingFactor ?? scalingFactors[latentChannels];
  if (scale === undefined) throw new CheckpointError(`the autoencoder has ${latentChannels} latent channels, and no published one is known to; say its scalingFactor`);
  const indices = Array.from({ length: levels }, (_, i) => i);
  const attention = (side: string): number[] => indices.filter((i) => tensors.has(`${side}.${i}.attn.0.q.weight`));
  const config: AutoencoderConfig = {
    inChannels,
    channels,
    channelMultipliers: indices.map((i) => (tensors.get(`encoder.down.${i}.block.0.conv2.weight`)?.shape[0] ?? channels) / channels),
    numResBlocks: depthOf(tensors, 'encoder.down.0.block'),
    latentChannels,
    groups: 32,
    scalingFactor: scale,
    encoderAttentionLevels: attention('encoder.down'),
    decoderAttentionLevels: attention('decoder.up'),
  };
  return filled(new AutoencoderKL(config, { init: 'zeros' }), named);
}

/**
 * Which models a state dict may be of, by the names and shapes of its tensors; DiT and SiT of one shape are not told apart.
 * @returns names of presets, or what else it is; nothing where it is no model of ours
 */
export function recognise(state: StateDict): { presets: string[]; summary: string } | undefined {
  const dit = ditShape(state);
  if (dit.depth !== undefined) {
    const fits = presets.filter((name) => !/^(Tiny|MAR)/.test(name)).filter((name) => {
      const { depth, hiddenSize, patchSize } = ditConfig(name);
      return depth === dit.depth && hiddenSize === dit.hiddenSize && patchSize === dit.patchSize;
    });
    return { presets: fits, summary: `${dit.depth} blocks of width ${dit.hiddenSize}, patch ${dit.patchSize}, ${dit.inputSize}×${dit.inputSize}×${dit.inChannels} latents, ${dit.numClasses} classes` };
  }
  const { encoderDepth, decoderDepth, encoderWidth, numClasses } = marShape('MAR-B', state);
  if (encoderDepth !== undefined && decoderDepth !== undefined) {
    const fits = presets.filter((name) => name.startsWith('MAR')).filter((name) => {
      const config = marConfig(name);
      return config.encoderDepth === encoderDepth && config.decoderDepth === decoderDepth && config.encoderWidth === encoderWidth;
    });
    return { presets: fits, summary: `${encoderDepth} blocks in the encoder and ${decoderDepth} in the decoder, of width ${encoderWidth}, ${numClasses} classes` };
  }
  if (state.tensors.has('encoder.conv_in.weight') && state.tensors.has('decoder.conv_in.weight')) return { presets: [], summary: `an autoencoder of latent diffusion with ${state.tensors.get('decoder.conv_in.weight')!.shape[1]} latent channels` };
  return undefined;
}

/** Whose names a checkpoint's tensors have. */
export type Naming = 'upstream' | 'diffusers';

/**
 * A DiT or an autoencoder in the other project's names; what has them already stays. Nothing is read.
 * @throws CheckpointError where it is neither
 */
export function renamed(state: StateDict, names: Naming): StateDict {
  if (isDiffusersDiT(state)) return names === 'diffusers' ? state : ditFromDiffusers(state);
  if (state.tensors.has('blocks.0.adaLN_modulation.1.weight') && state.tensors.has('x_embedder.proj.weight')) return names === 'upstream' ? state : ditToDiffusers(state);
  if (state.tensors.has('encoder.conv_in.weight') || state.tensors.has('decoder.conv_in.weight')) {
    const { tensors } = state;
    const levels = Math.max(...['encoder.down', 'decoder.up', 'encoder.down_blocks', 'decoder.up_blocks'].map((stack) => depthOf(tensors, stack)));
    return names === 'diffusers' ? toDiffusersNames(state, levels) : fromDiffusersNames(state, levels);
  }
  throw new CheckpointError(`the checkpoint is no DiT and no autoencoder, whose names alone differ between projects; it has: ${[...state.tensors.keys()].slice(0, 6).join(', ')}`);
}

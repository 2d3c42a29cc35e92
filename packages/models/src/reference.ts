import { CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import { MODEL_KEY, storedConfig } from '@tinyfusion/nn';
import type { StateDict } from '@tinyfusion/weights';
import { fromDiffusersNames, toDiffusersNames } from './diffusers.js';
import { ditFromDiffusers, ditToDiffusers, isDiffusersDiT } from './diffusers-dit.js';
import type { DiTConfig } from './dit.js';
import { type LoadOptions, blank, filled } from './filled.js';
import type { MARConfig } from './mar/mar.js';
import { type ChangesOf, type ModelOf, createModel, ditConfig, marConfig, presets, unknown } from './presets.js';
import { autoencoderShape, checkMlps, depthOf, ditShape, marShape, ofCheckpoint } from './shapes.js';
import { AutoencoderKL, type AutoencoderConfig } from './vae.js';

/**
 * A model of a reference's checkpoint: the preset of that name, with what the tensors' shapes say otherwise (classes,
 * image size, depth), so that fine-tuned and shallow ones load too.
 *
 * @param name one of `presets`; it decides the family, and the number of heads, which no shape tells. In a checkpoint of
 * ours that keeps its own configuration, that one counts
 * @param given as `weightsOf` gives it, in upstream's names or, for a DiT, diffusers', see {@link ditFromDiffusers} for
 * the size of its latents
 * @throws ArgumentError where the name is unknown, or a change is none; CheckpointError that lists what does not fit, where
 * the checkpoint is of another width than the preset and `changes` has no number of heads, or where it says itself that it
 * is of another family
 */
export async function loadReference<Name extends string>(name: Name, given: StateDict, { changes, dtype, ...task }: LoadReferenceOptions<Name> = {}): Promise<ModelOf<Name>> {
  if (!presets.includes(name)) unknown(name, presets);
  const init = blank(dtype);
  const family = familyOf(name);
  const own = given.metadata.has(MODEL_KEY) ? storedConfig<Partial<DiTConfig & MARConfig>>(given, family) : undefined;
  const known: Partial<DiTConfig & MARConfig> = { ...own, ...changes };
  const state = isDiffusersDiT(given) ? ditFromDiffusers(given, { inputSize: (changes as Partial<DiTConfig> | undefined)?.inputSize }) : given;
  const found = family === 'MAR' ? marShape(state, known.patchSize ?? marConfig(name).patchSize) : ditShape(state, known);
  if (Object.keys(found).length === 0) throw new CheckpointError(`the checkpoint is no ${family}: tensors are missing that every ${family} has. It has: ${[...state.tensors.keys()].slice(0, 6).join(', ') || 'none'}`);
  if (own === undefined) requireHeads(name, found, changes ?? {});
  else checkMlps(family, { ...own, ...found }, state);
  const model = ofCheckpoint(family, () => createModel(name, { init, changes: { ...own, ...found, ...changes } as ChangesOf<Name> }), changes);
  return filled(model, state, task);
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

/** What published latents are multiplied by, by their channels: Stable Diffusion's, and MAR's KL-16. */
const scalingFactors: Readonly<Record<number, number>> = { 4: 0.18215, 16: 0.2325 };

/** Options of {@link loadReferenceAutoencoder}. */
export interface LoadReferenceAutoencoderOptions extends LongTaskOptions {
  /** What latents are multiplied by. Default: 0.18215 for 4 latent channels, 0.2325 for 16. */
  scalingFactor?: number | undefined;
}

/**
 * The autoencoder of a reference's checkpoint, in diffusers' names (`stabilityai/sd-vae-ft-ema`) or latent diffusion's
 * (MAR's `kl16.ckpt`); its shape is read off the tensors, and those of a discriminator are left out.
 *
 * @throws CheckpointError where it is no autoencoder, or tensors are missing or wrongly shaped
 */
export async function loadReferenceAutoencoder(state: StateDict, { scalingFactor, ...task }: LoadReferenceAutoencoderOptions = {}): Promise<AutoencoderKL> {
  const own = new Map([...state.tensors].filter(([name]) => /^(encoder|decoder|quant_conv|post_quant_conv)\./.test(name)));
  const diffusers = [...own.keys()].some((name) => name.includes('.down_blocks.'));
  const named = diffusers ? fromDiffusersNames({ ...state, tensors: own }, depthOf(own, 'encoder.down_blocks')) : { ...state, tensors: own };
  const found = autoencoderShape(named);
  const { latentChannels } = found;
  if (latentChannels === undefined) throw new CheckpointError(`the checkpoint is no autoencoder of latent diffusion: it has no encoder.conv_in or post_quant_conv. It has: ${[...state.tensors.keys()].slice(0, 6).join(', ')}`);
  const scale = scalingFactor ?? scalingFactors[latentChannels];
  if (scale === undefined) throw new CheckpointError(`the autoencoder has ${latentChannels} latent channels, and no published one is known to; say its scalingFactor`);
  const config = { ...found, groups: 32, scalingFactor: scale } as AutoencoderConfig;
  const model = ofCheckpoint('AutoencoderKL', () => new AutoencoderKL(config, { init: 'zeros' }), { scalingFactor });
  return filled(model, named, task);
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
  const { encoderDepth, decoderDepth, encoderWidth, numClasses } = marShape(state, marConfig('MAR-B').patchSize);
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

/** Options of {@link renamed}. */
export interface RenamedOptions {
  /** Side of the latents of a DiT that gets upstream's names. Default: see {@link ditFromDiffusers}. */
  inputSize?: number | undefined;
}

/**
 * A DiT or an autoencoder in the other project's names; what has them already stays. Nothing is read.
 * @throws CheckpointError where it is neither, or throws as {@link ditFromDiffusers}
 */
export function renamed(state: StateDict, names: Naming, { inputSize }: RenamedOptions = {}): StateDict {
  if (isDiffusersDiT(state)) return names === 'diffusers' ? state : ditFromDiffusers(state, { inputSize });
  if (state.tensors.has('blocks.0.adaLN_modulation.1.weight') && state.tensors.has('x_embedder.proj.weight')) return names === 'upstream' ? state : ditToDiffusers(state);
  if (state.tensors.has('encoder.conv_in.weight') || state.tensors.has('decoder.conv_in.weight')) {
    const { tensors } = state;
    const levels = Math.max(...['encoder.down', 'decoder.up', 'encoder.down_blocks', 'decoder.up_blocks'].map((stack) => depthOf(tensors, stack)));
    return names === 'diffusers' ? toDiffusersNames(state, levels) : fromDiffusersNames(state, levels);
  }
  throw new CheckpointError(`the checkpoint is no DiT and no autoencoder, whose names alone differ between projects; it has: ${[...state.tensors.keys()].slice(0, 6).join(', ')}`);
}

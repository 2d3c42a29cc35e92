/** A kind of model, told by the names of its stacks. */
export interface StackFamily {
  /** Who names them so. */
  readonly name: string;
  /** Fields of the stacks, in the order in which they run. */
  readonly stacks: readonly string[];
  /** Keys of a configuration that hold each stack's depth. */
  readonly depths: readonly (readonly string[])[];
  /** Whether encoders beside the model may well have the same name: then the largest of all these is meant. */
  readonly common?: boolean;
}

/**
 * Names that residual stacks have in checkpoints, the more telling first. A family fits where all its stacks are below one
 * prefix (`model.diffusion_model.`, `transformer.`).
 */
export const stackFamilies: readonly StackFamily[] = [
  { name: 'FLUX (diffusers)', stacks: ['transformer_blocks', 'single_transformer_blocks'], depths: [['num_layers'], ['num_single_layers']] },
  { name: 'FLUX, HunyuanVideo', stacks: ['double_blocks', 'single_blocks'], depths: [['depth', 'mm_double_blocks_depth'], ['depth_single_blocks', 'mm_single_blocks_depth']] },
  { name: 'AuraFlow', stacks: ['joint_transformer_blocks', 'single_transformer_blocks'], depths: [['num_mmdit_layers'], ['num_single_dit_layers']] },
  { name: 'MAR', stacks: ['encoder_blocks', 'decoder_blocks'], depths: [['encoderDepth', 'encoder_depth'], ['decoderDepth', 'decoder_depth']] },
  { name: 'SD3', stacks: ['joint_blocks'], depths: [['depth', 'num_layers']] },
  { name: 'SD3, Qwen-Image, PixArt (diffusers)', stacks: ['transformer_blocks'], depths: [['num_layers']] },
  { name: 'DiT, SiT, Wan', stacks: ['blocks'], depths: [['depth', 'num_layers']], common: true },
  { name: 'LLaMA', stacks: ['model.layers'], depths: [['num_hidden_layers']], common: true },
  { name: 'Lumina, Z-Image', stacks: ['layers'], depths: [['num_layers', 'n_layers', 'num_hidden_layers']], common: true },
  { name: 'GPT-2', stacks: ['h'], depths: [['n_layer', 'num_hidden_layers']], common: true },
];

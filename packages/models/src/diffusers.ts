import { CheckpointError } from '@tinyfusion/core';
import type { StateDict, TensorRecord } from '@tinyfusion/weights';

/**
 * An autoencoder's state dict in diffusers' names (`encoder.down_blocks.0.resnets.0.conv1.weight`) in those of latent
 * diffusion, which {@link AutoencoderKL} has; nothing is read. Names that are latent diffusion's already stay. diffusers
 * counts the decoder's levels from the coarsest, and keeps the attention's 1×1 convolutions as linear layers.
 *
 * @param levels number of levels
 * @throws CheckpointError where a name belongs to neither
 */
export function fromDiffusersNames(state: StateDict, levels: number): StateDict {
  const tensors = new Map<string, TensorRecord>();
  for (const [name, record] of state.tensors) {
    const renamed = rename(name, levels);
    if (tensors.has(renamed)) throw new CheckpointError(`the checkpoint has ${name} in diffusers' names and in latent diffusion's`);
    const isLinear = /\.attn_1\.(q|k|v|proj_out)\.weight$/.test(renamed) && record.shape.length === 2;
    tensors.set(renamed, isLinear ? { ...record, shape: [...record.shape, 1, 1], read: () => record.read() } : record);
  }
  return { tensors, metadata: state.metadata };
}

const attention: Readonly<Record<string, string>> = { group_norm: 'norm', to_q: 'q', to_k: 'k', to_v: 'v', 'to_out.0': 'proj_out', query: 'q', key: 'k', value: 'v', proj_attn: 'proj_out' };

function rename(name: string, levels: number): string {
  return name
    .replace(/^encoder\.down_blocks\.(\d+)\.resnets\./, 'encoder.down.$1.block.')
    .replace(/^encoder\.down_blocks\.(\d+)\.downsamplers\.0\./, 'encoder.down.$1.downsample.')
    .replace(/^decoder\.up_blocks\.(\d+)\.resnets\./, (_, i: string) => `decoder.up.${levels - 1 - Number(i)}.block.`)
    .replace(/^decoder\.up_blocks\.(\d+)\.upsamplers\.0\./, (_, i: string) => `decoder.up.${levels - 1 - Number(i)}.upsample.`)
    .replace(/\.mid_block\.resnets\.(\d)\./, (_, i: string) => `.mid.block_${Number(i) + 1}.`)
    .replace(/\.mid_block\.attentions\.0\.(group_norm|to_q|to_k|to_v|to_out\.0|query|key|value|proj_attn)\./, (_, part: string) => `.mid.attn_1.${attention[part]}.`)
    .replace('.conv_shortcut.', '.nin_shortcut.')
    .replace('.conv_norm_out.', '.norm_out.');
}

/**
 * An autoencoder's state dict in diffusers' names, the inverse of {@link fromDiffusersNames}; the attention's convolutions
 * become linear layers, under the names that diffusers has since 0.18 (`to_q`).
 *
 * @param levels number of levels
 */
export function toDiffusersNames(state: StateDict, levels: number): StateDict {
  const tensors = new Map<string, TensorRecord>();
  for (const [name, record] of state.tensors) {
    const isLinear = /\.attn_1\.(q|k|v|proj_out)\.weight$/.test(name);
    tensors.set(renameBack(name, levels), isLinear ? { ...record, shape: record.shape.slice(0, 2), read: () => record.read() } : record);
  }
  return { tensors, metadata: state.metadata };
}

const attentionBack: Readonly<Record<string, string>> = { norm: 'group_norm', q: 'to_q', k: 'to_k', v: 'to_v', proj_out: 'to_out.0' };

function renameBack(name: string, levels: number): string {
  return name
    .replace(/^encoder\.down\.(\d+)\.block\./, 'encoder.down_blocks.$1.resnets.')
    .replace(/^encoder\.down\.(\d+)\.downsample\./, 'encoder.down_blocks.$1.downsamplers.0.')
    .replace(/^decoder\.up\.(\d+)\.block\./, (_, i: string) => `decoder.up_blocks.${levels - 1 - Number(i)}.resnets.`)
    .replace(/^decoder\.up\.(\d+)\.upsample\./, (_, i: string) => `decoder.up_blocks.${levels - 1 - Number(i)}.upsamplers.0.`)
    .replace(/\.mid\.block_(\d)\./, (_, i: string) => `.mid_block.resnets.${Number(i) - 1}.`)
    .replace(/\.mid\.attn_1\.(norm|q|k|v|proj_out)\./, (_, part: string) => `.mid_block.attentions.0.${attentionBack[part]}.`)
    .replace('.nin_shortcut.', '.conv_shortcut.')
    .replace('.norm_out.', '.conv_norm_out.');
}

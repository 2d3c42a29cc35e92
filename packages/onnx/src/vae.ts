import type { AutoencoderKL } from '@tinyfusion/models';
import type { Conv2d, GroupNorm } from '@tinyfusion/nn';
import type { GraphBuilder, Value } from './graph-builder.js';
import { attention, conv2d, fromFloat32, groupNorm, silu } from './layers.js';

type Encoder = AutoencoderKL['encoder'];
type Decoder = AutoencoderKL['decoder'];
type Level = Decoder['up'][number];
type Middle = Decoder['mid'];
type ResBlock = Level['block'][number];
type SpatialAttention = Level['attn'][number];

/** Zeros on every side of a 3×3 convolution. */
export const around = { pads: [1, 1, 1, 1] };

/** `AutoencoderKL.decode`: `x` `[N, h, w, latentChannels]`, unscaled → `output` `[N, f·h, f·w, C]`; any h and w. */
export function decoderGraph(g: GraphBuilder, model: AutoencoderKL): void {
  const { latentChannels, inChannels, groups } = model.config;
  const { conv_in, mid, up, norm_out, conv_out } = model.decoder;
  const x = g.input('x', 'F32', ['N', 'h', 'w', latentChannels]);
  let h = conv2d(g, model.post_quant_conv, channelsFirst(g, x));
  h = middle(g, mid, conv2d(g, conv_in, h, around), groups);
  for (const stage of up.toReversed()) h = level(g, stage, h, groups);
  const image = conv2d(g, conv_out, normed(g, norm_out, h, groups), around);
  g.output('output', channelsLast(g, image), ['N', 'H', 'W', inChannels]);
}

/** `AutoencoderKL.encode`: `x` `[N, H, W, C]` → `mean` and `logVariance`, each `[N, H/f, W/f, latentChannels]`, unscaled. */
export function encoderGraph(g: GraphBuilder, model: AutoencoderKL): void {
  const { latentChannels, inChannels, groups } = model.config;
  const { conv_in, down, mid, norm_out, conv_out }: Encoder = model.encoder;
  const x = g.input('x', 'F32', ['N', 'H', 'W', inChannels]);
  let h = conv2d(g, conv_in, channelsFirst(g, x), around);
  for (const stage of down) h = level(g, stage, h, groups);
  h = normed(g, norm_out, middle(g, mid, h, groups), groups);
  const moments = conv2d(g, model.quant_conv, conv2d(g, conv_out, h, around));
  const [mean, logVariance] = g.nodeOf(2, 'Split', [channelsLast(g, moments)], { axis: 3 }) as [Value, Value];
  g.output('mean', mean, ['N', 'h', 'w', latentChannels]);
  g.output('logVariance', g.node('Clip', [logVariance, g.scalar(-30), g.scalar(20)]), ['N', 'h', 'w', latentChannels]);
}

export const channelsFirst = (g: GraphBuilder, x: Value): Value => g.node('Transpose', [fromFloat32(g, x)], { perm: [0, 3, 1, 2] });
export const channelsLast = (g: GraphBuilder, x: Value): Value => g.node('Transpose', [x], { perm: [0, 2, 3, 1] });

/** SiLU of the normalised. */
const normed = (g: GraphBuilder, norm: GroupNorm, x: Value, groups: number): Value => silu(g, groupNorm(g, norm, x, groups));

function level(g: GraphBuilder, { block, attn, downsample, upsample }: Level, x: Value, groups: number): Value {
  let h = x;
  for (const [i, layers] of block.entries()) {
    h = resBlock(g, layers, h, groups);
    const mixing = attn[i];
    if (mixing !== undefined) h = spatialAttention(g, mixing, h, groups);
  }
  if (downsample !== undefined) return conv2d(g, downsample.conv, h, { stride: 2, pads: [0, 0, 1, 1] });
  return upsample === undefined ? h : conv2d(g, upsample.conv, repeatPixels(g, h), around);
}

function middle(g: GraphBuilder, { block_1, attn_1, block_2 }: Middle, x: Value, groups: number): Value {
  return resBlock(g, block_2, spatialAttention(g, attn_1, resBlock(g, block_1, x, groups), groups), groups);
}

function resBlock(g: GraphBuilder, { norm1, conv1, norm2, conv2, nin_shortcut }: ResBlock, x: Value, groups: number): Value {
  const h = conv2d(g, conv1, normed(g, norm1, x, groups), around);
  const branch = conv2d(g, conv2, normed(g, norm2, h, groups), around);
  return g.node('Add', [nin_shortcut === undefined ? x : conv2d(g, nin_shortcut, x), branch]);
}

/** Self-attention over pixels, one head as wide as the features. */
function spatialAttention(g: GraphBuilder, { norm, q, k, v, proj_out }: SpatialAttention, x: Value, groups: number): Value {
  const width = norm.weight.shape[0]!;
  const h = groupNorm(g, norm, x, groups);
  const columns = (conv: Conv2d) => g.node('Reshape', [conv2d(g, conv, h), g.integers([0, width, -1])]); // [N, C, H·W]
  const rows = (conv: Conv2d) => g.node('Transpose', [columns(conv)], { perm: [0, 2, 1] }); //              [N, H·W, C]
  const mixed = g.node('Transpose', [attention(g, rows(q), columns(k), rows(v), width)], { perm: [0, 2, 1] });
  return g.node('Add', [x, conv2d(g, proj_out, g.node('Reshape', [mixed, g.node('Shape', [x])]))]);
}

/** Each pixel as a 2×2 block. */
export function repeatPixels(g: GraphBuilder, x: Value): Value {
  const scales = g.floats('scales', Float32Array.of(1, 1, 2, 2), [4], 'F32');
  return g.node('Resize', [x, '', scales], { mode: 'nearest', coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' });
}

import { type DiT, type DiTBlock, type FinalLayer, LinearBlock, SiT, type TimestepEmbedder } from '@tinyfusion/models';
import type { GraphBuilder, Value } from './graph-builder.js';
import { conv2d, embedding, fromFloat32, gelu, linear, mlp, modulatedNorm, selfAttention, silu, unsqueeze } from './layers.js';

/** `DiT.forward` and `SiT.forward`: `x` `[N, H, W, C]`, `t` `[N]`, `y` `[N]` int32 → `output` `[N, H, W, outChannels]`. */
export function ditGraph(g: GraphBuilder, model: DiT): void {
  const { inputSize, patchSize, inChannels, hiddenSize } = model.config;
  const x = g.input('x', 'F32', ['N', inputSize, inputSize, inChannels]);
  const t = g.input('t', 'F32', ['N']);
  const y = g.input('y', 'I32', ['N']);
  const tokens = (inputSize / patchSize) ** 2;

  let h = g.node('Add', [patchEmbed(g, model, x), g.parameter(model, 'pos_embed', [1, tokens, hiddenSize])]); //  [N, T, D]
  const c = g.node('Add', [timestepEmbed(g, model.t_embedder, t), embedding(g, model.y_embedder.embedding_table, y)]); // [N, D]
  const active = silu(g, c); // every block's adaLN starts with it
  for (const block of model.blocks) h = block instanceof LinearBlock ? g.node('Add', [h, linear(g, block.linear, h)]) : ditBlock(g, block, h, active);
  const output = unpatchify(g, model, finalLayer(g, model.final_layer, h, active));
  g.output('output', output, ['N', inputSize, inputSize, model.outChannels]);
}

function patchEmbed(g: GraphBuilder, model: DiT, x: Value): Value {
  const { patchSize, hiddenSize } = model.config;
  const channelsFirst = g.node('Transpose', [fromFloat32(g, x)], { perm: [0, 3, 1, 2] });
  const patches = conv2d(g, model.x_embedder.proj, channelsFirst, { stride: patchSize }); // [N, D, H/p, W/p]
  return g.node('Transpose', [g.node('Reshape', [patches, g.integers([0, hiddenSize, -1])])], { perm: [0, 2, 1] });
}

/** Sinusoids in float32, as timesteps reach 1000, then the MLP. */
export function timestepEmbed(g: GraphBuilder, embedder: TimestepEmbedder, t: Value): Value {
  const [first, , second] = embedder.mlp;
  const half = first.inFeatures / 2;
  // rounded where the forward pass rounds
  const frequencies = Float32Array.from({ length: half }, (_, i) => Math.exp(Math.fround(Math.fround(Math.fround(-Math.log(10000)) * i) / half)));
  const angles = g.node('Mul', [unsqueeze(g, t, [1]), g.floats('frequencies', frequencies, [1, half], 'F32')]);
  const waves = g.node('Concat', [g.node('Cos', [angles]), g.node('Sin', [angles])], { axis: 1 });
  return linear(g, second, silu(g, linear(g, first, fromFloat32(g, waves))));
}

/** @param active SiLU of the condition, `[N, D]` */
function ditBlock(g: GraphBuilder, { adaLN_modulation: [, projection], attn, mlp: layers }: DiTBlock, x: Value, active: Value): Value {
  const width = projection.inFeatures;
  const [shift1, scale1, gate1, shift2, scale2, gate2] = g.nodeOf(6, 'Split', [unsqueeze(g, linear(g, projection, active), [1])], { axis: 2 }) as [Value, Value, Value, Value, Value, Value]; // six of [N, 1, D]
  const h = attn === undefined ? x : g.node('Add', [x, g.node('Mul', [gate1, selfAttention(g, attn, modulatedNorm(g, x, width, shift1, scale1))])]);
  return layers === undefined ? h : g.node('Add', [h, g.node('Mul', [gate2, mlp(g, layers, modulatedNorm(g, h, width, shift2, scale2), gelu)])]);
}

function finalLayer(g: GraphBuilder, { adaLN_modulation: [, projection], linear: last }: FinalLayer, x: Value, active: Value): Value {
  const [shift, scale] = g.nodeOf(2, 'Split', [unsqueeze(g, linear(g, projection, active), [1])], { axis: 2 }) as [Value, Value];
  return linear(g, last, modulatedNorm(g, x, last.inFeatures, shift, scale));
}

/** `[N, T, p·p·C]` → `[N, H, W, C]`; SiT's variance is cut off. */
function unpatchify(g: GraphBuilder, model: DiT, tokens: Value): Value {
  const { inputSize, patchSize: p, inChannels, learnSigma } = model.config;
  const grid = inputSize / p;
  const channels = inChannels * (learnSigma ? 2 : 1);
  const parts = g.node('Reshape', [tokens, g.integers([-1, grid, grid, p, p * channels])]);
  const image = g.node('Reshape', [g.node('Transpose', [parts], { perm: [0, 1, 3, 2, 4] }), g.integers([-1, inputSize, inputSize, channels])]);
  return model instanceof SiT && learnSigma ? g.node('Slice', [image, g.integers([0]), g.integers([inChannels]), g.integers([3])]) : image;
}

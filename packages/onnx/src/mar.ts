import type { DiffusionHead, MAR, ViTBlock } from '@tinyfusion/models';
import { timestepEmbed } from './dit.js';
import type { GraphBuilder, Value } from './graph-builder.js';
import { fromFloat32, geluExact, layerNorm, linear, mlp, modulated, modulatedNorm, selfAttention, silu, unsqueeze } from './layers.js';

/**
 * `MAR.encode` and `MAR.decode`: `tokens` `[N, L, C]`, `mask` `[N, L]` int32 (not 0 where masked, as many in each sample)
 * and `y` `[N]` int32 (numClasses for "no class") → `output` `[N, L, Z]`, a condition for each token.
 */
export function marGraph(g: GraphBuilder, model: MAR): void {
  const { encoderWidth, decoderWidth, bufferSize, normEpsilon: epsilon } = model.config;
  const length = bufferSize + model.tokens;
  const tokens = g.input('tokens', 'F32', ['N', model.tokens, model.tokenChannels]);
  const mask = g.input('mask', 'I32', ['N', model.tokens]);
  const condition = classEmbedding(g, model, g.input('y', 'I32', ['N'])); // [N, D]
  const samples = g.node('Shape', [mask], { start: 0, end: 1 });
  const kept = keptRows(g, mask, samples, bufferSize); //                    [R]

  // the encoder sees the buffer and the tokens that are not masked
  const buffer = g.node('Expand', [unsqueeze(g, condition, [1]), g.integers([1, bufferSize, 1])]);
  const all = g.node('Concat', [buffer, linear(g, model.z_proj, fromFloat32(g, tokens))], { axis: 1 });
  const placed = g.node('Add', [all, g.parameter(model, 'encoder_pos_embed_learned', [1, length, encoderWidth])]);
  const known = g.node('Gather', [g.node('Reshape', [placed, g.integers([-1, encoderWidth])]), kept], { axis: 0 });
  const byImage = g.node('Concat', [samples, g.integers([-1, encoderWidth])], { axis: 0 });
  let h = layerNorm(g, model.z_proj_ln, g.node('Reshape', [known, byImage]), 1e-6);
  for (const block of model.encoder_blocks) h = vitBlock(g, block, h, epsilon);
  h = linear(g, model.decoder_embed, layerNorm(g, model.encoder_norm, h, epsilon));

  // the decoder sees every token, masked ones as the mask token
  const rows = g.node('Reshape', [h, g.integers([-1, decoderWidth])]);
  const count = g.node('Mul', [samples, g.integers([length])]);
  const blank = g.node('Expand', [g.parameter(model, 'mask_token', [1, decoderWidth]), g.node('Concat', [count, g.integers([1])], { axis: 0 })]);
  const filled = g.node('ScatterND', [blank, unsqueeze(g, kept, [1]), rows]);
  h = g.node('Add', [g.node('Reshape', [filled, g.integers([-1, length, decoderWidth])]), g.parameter(model, 'decoder_pos_embed_learned', [1, length, decoderWidth])]);
  for (const block of model.decoder_blocks) h = vitBlock(g, block, h, epsilon);
  const out = g.node('Slice', [layerNorm(g, model.decoder_norm, h, epsilon), g.integers([bufferSize]), g.integers([length]), g.integers([1])]);
  const z = g.node('Add', [out, g.parameter(model, 'diffusion_pos_embed_learned', [1, model.tokens, decoderWidth])]);
  g.output('output', z, ['N', model.tokens, decoderWidth]);
}

/** Rows of the classes, then that of no class. */
function classEmbedding(g: GraphBuilder, model: MAR, y: Value): Value {
  const { numClasses, encoderWidth } = model.config;
  const classes = g.parameter(model.class_emb, 'weight', [numClasses, encoderWidth]);
  const table = g.node('Concat', [classes, g.parameter(model, 'fake_latent', [1, encoderWidth])], { axis: 0 });
  return g.node('Gather', [table, y], { axis: 0 });
}

/** Rows of the buffer and of the tokens that are not masked, in a matrix of all samples' `buffer + L` rows. */
function keptRows(g: GraphBuilder, mask: Value, samples: Value, bufferSize: number): Value {
  const buffer = g.node('Expand', [g.integer32(0), g.node('Concat', [samples, g.integers([bufferSize])], { axis: 0 })]);
  const kept = g.node('Equal', [g.node('Concat', [buffer, mask], { axis: 1 }), g.integer32(0)]);
  return g.node('Reshape', [g.node('NonZero', [g.node('Reshape', [kept, g.integers([-1])])]), g.integers([-1])]);
}

function vitBlock(g: GraphBuilder, { norm1, attn, norm2, mlp: layers }: ViTBlock, x: Value, epsilon: number): Value {
  const h = g.node('Add', [x, selfAttention(g, attn, layerNorm(g, norm1, x, epsilon))]);
  return g.node('Add', [h, mlp(g, layers, layerNorm(g, norm2, h, epsilon), geluExact)]);
}

/** `DiffusionHead.forward`: `x` `[R, C]`, `t` `[R]` and `c` `[R, Z]` → `output` `[R, outChannels]`. */
export function headGraph(g: GraphBuilder, { time_embed, cond_embed, input_proj, res_blocks, final_layer }: DiffusionHead): void {
  const x = g.input('x', 'F32', ['R', input_proj.inFeatures]);
  const t = g.input('t', 'F32', ['R']);
  const c = g.input('c', 'F32', ['R', cond_embed.inFeatures]);
  const y = g.node('Add', [timestepEmbed(g, time_embed, t), linear(g, cond_embed, fromFloat32(g, c))]);
  const active = silu(g, y); // every block's adaLN starts with it
  let h = linear(g, input_proj, fromFloat32(g, x));
  for (const { in_ln, mlp: [first, , second], adaLN_modulation: [, projection] } of res_blocks) {
    const [shift, scale, gate] = g.nodeOf(3, 'Split', [linear(g, projection, active)], { axis: 1 }) as [Value, Value, Value];
    const branch = linear(g, second, silu(g, linear(g, first, modulated(g, layerNorm(g, in_ln, h, 1e-6), shift, scale))));
    h = g.node('Add', [h, g.node('Mul', [gate, branch])]);
  }
  const { adaLN_modulation: [, projection], linear: last } = final_layer;
  const [shift, scale] = g.nodeOf(2, 'Split', [linear(g, projection, active)], { axis: 1 }) as [Value, Value];
  g.output('output', linear(g, last, modulatedNorm(g, h, last.inFeatures, shift, scale)), ['R', last.outFeatures]);
}

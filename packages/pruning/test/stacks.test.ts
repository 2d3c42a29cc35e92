import { type Source, type StateDict, bytesSource, readShardedSafetensors, stateDictOf, toFloat32, writableTensor, writeSafetensors } from '@tinyfusion/weights';
import { describe, expect, it } from 'vitest';
import { findStacks, pruneStacks, pruneState, prunedConfig } from '../src/index.js';

type Shapes = Record<string, number[]>;

/** A checkpoint of shapes alone: reading it fails. */
function shapes(own: Shapes, dtype: 'F32' | 'BF16' | 'U8' = 'F32'): StateDict {
  const read = async (): Promise<Uint8Array> => Promise.reject(new Error('a tensor was read'));
  return { tensors: new Map(Object.entries(own).map(([name, shape]) => [name, { dtype, shape, read }])), metadata: new Map() };
}
const blocks = (stack: string, depth: number, of: Shapes): Shapes => Object.fromEntries(Array.from({ length: depth }, (_, i) => Object.entries(of).map(([name, shape]) => [`${stack}.${i}.${name}`, shape] as const)).flat());

const double = { 'attn.to_q.weight': [8, 8], 'attn.to_out.0.weight': [8, 8], 'ff.net.0.proj.weight': [32, 8], 'ff.net.2.weight': [8, 32] };
const single = { 'attn.to_q.weight': [8, 8], 'proj_out.weight': [8, 40] };
const embedders = { 'x_embedder.weight': [8, 4], 't_embedder.mlp.0.weight': [8, 256], 't_embedder.mlp.2.weight': [8, 8], 'final_layer.adaLN_modulation.1.weight': [16, 8] };
const cases: [string, Shapes, string[], RegExp][] = [
  ['FLUX in diffusers', { ...embedders, ...blocks('transformer_blocks', 19, double), ...blocks('single_transformer_blocks', 38, single) }, ['transformer_blocks', 'single_transformer_blocks'], /as FLUX \(diffusers\) names its stacks/],
  ['FLUX', { ...embedders, ...blocks('model.diffusion_model.double_blocks', 19, double), ...blocks('model.diffusion_model.single_blocks', 38, single), ...blocks('text_encoders.t5xxl.transformer.encoder.block', 24, { 'layer.0.w': [512, 512], 'layer.1.w': [512, 512] }) }, ['model.diffusion_model.double_blocks', 'model.diffusion_model.single_blocks'], /found: text_encoders\.t5xxl\.transformer\.encoder\.block \(24 blocks/],
  ['SD3.5', { ...blocks('model.diffusion_model.joint_blocks', 24, { 'x_block.attn.qkv.weight': [24, 8], 'context_block.mlp.fc1.weight': [32, 8] }) }, ['model.diffusion_model.joint_blocks'], /as SD3 names its stack/],
  ['Qwen-Image', blocks('transformer_blocks', 60, double), ['transformer_blocks'], /^transformer_blocks, as/],
  ['DiT', { ...embedders, ...blocks('blocks', 28, { 'attn.qkv.weight': [24, 8], 'adaLN_modulation.1.weight': [48, 8] }) }, ['blocks'], /as DiT/],
  ['MAR', { ...blocks('encoder_blocks', 12, single), ...blocks('decoder_blocks', 12, single), ...blocks('diffloss.net.res_blocks', 6, { 'in_ln.weight': [64], 'mlp.0.weight': [640, 64], 'mlp.2.weight': [64, 640] }) }, ['encoder_blocks', 'decoder_blocks'], /as MAR/],
  ['LLaMA', { 'model.embed_tokens.weight': [100, 8], ...blocks('model.layers', 32, { 'self_attn.q_proj.weight': [8, 8], 'mlp.experts.0.w': [8, 8], 'mlp.experts.1.w': [8, 8] }) }, ['model.layers'], /as LLaMA/],
  ['a language model with an image encoder', { ...blocks('visual.blocks', 32, single), ...blocks('model.layers', 32, { 'mlp.w': [100, 100] }) }, ['model.layers'], /found: model\.layers .* visual\.blocks/],
  ['one stack of another name', { ...embedders, ...blocks('net.trunk', 5, single) }, ['net.trunk'], /the only stack/],
  ['one by far the largest', { ...blocks('net.trunk', 50, double), ...blocks('net.head', 2, single) }, ['net.trunk'], /the largest by far; found: net\.trunk .* net\.head/],
];

describe('findStacks', () => {
  it.each(cases)('knows %s', (_, own, chosen, note) => {
    const found = findStacks(shapes(own));
    expect(found.chosen).toEqual(chosen);
    expect(found.note).toMatch(note);
    expect(found.stacks.every(({ uniform, holes }) => uniform && holes.length === 0)).toBe(true);
  });

  it('counts, and leaves alone what is inside of blocks', () => {
    const { stacks } = findStacks(shapes(cases[6]![1], 'BF16'));
    expect(stacks).toEqual([{ name: 'model.layers', depth: 32, blocks: 32, holes: [], parameters: 32 * 192, bytes: 32 * 192 * 2, uniform: true, odd: [], ownLast: false }]);
    expect(findStacks(shapes(cases[0]![1])).stacks.map(({ name }) => name)).toEqual(['single_transformer_blocks', 'transformer_blocks']); // the largest first
  });

  it('sees odd blocks and holes', () => {
    const own = { ...blocks('transformer_blocks', 6, double), ...blocks('transformer_blocks.5.only', 1, { x: [1] }) };
    for (const name of Object.keys(own)) if (name.startsWith('transformer_blocks.2.') || name.startsWith('transformer_blocks.3.')) delete own[name];
    const { stacks, note } = findStacks(shapes(own));
    expect(stacks[0]).toMatchObject({ depth: 6, blocks: 4, holes: [2, 3], uniform: false, odd: [5], ownLast: true });
    expect(note).toMatch(/^transformer_blocks, as/);
  });

  it('looks into lists of unlike blocks, and does not guess', () => {
    // a U-Net: levels differ, the stacks are inside
    const unet = Object.assign({}, ...[8, 16, 32].map((d, i) => blocks(`down_blocks.${i}.attentions.0.transformer_blocks`, 2, { 'attn.to_q.weight': [d, d] }))) as Shapes;
    const found = findStacks(shapes({ ...unet, 'down_blocks.0.resnets.0.conv1.weight': [8, 8, 3, 3], 'down_blocks.1.resnets.0.conv1.weight': [16, 16, 3, 3] }));
    expect(found.stacks.map(({ name }) => name)).toEqual([2, 1, 0].map((i) => `down_blocks.${i}.attentions.0.transformer_blocks`));
    expect(found.chosen).toEqual(['down_blocks.2.attentions.0.transformer_blocks']); // four times the next
    const twice = findStacks(shapes({ ...blocks('model.blocks', 4, single), ...blocks('ema.blocks', 4, single) }));
    expect([twice.chosen, twice.note]).toEqual([[], '2 places have stacks as DiT, SiT, Wan names them (ema.blocks; model.blocks): name the one to cut']);
    const unknown = findStacks(shapes({ ...blocks('trunk', 4, single), ...blocks('stem', 4, single) }));
    expect(unknown.chosen).toEqual([]);
    expect(unknown.note).toMatch(/no stack is known by its name, .* name one of: stem \(4 blocks, 1536 values\), trunk/);
    const none = findStacks(shapes(embedders));
    expect([none.stacks, none.chosen]).toEqual([[], []]);
    expect(none.note).toMatch(/no numbered list of like blocks/);
  });
});

describe('surgery on files', () => {
  it('cuts several stacks at once, and takes along whatever a layer has', () => {
    const packed = { 'ff.qweight': [8, 4], 'ff.scales': [8], 'ff.weight.absmax': [2], 'ff.weight.quant_state.bitsandbytes__nf4': [90] };
    const own = { ...embedders, ...blocks('m.double_blocks', 4, packed), ...blocks('m.single_blocks', 3, packed) };
    const cut = pruneStacks(shapes(own, 'U8'), { 'm.double_blocks': [1, 3], 'm.single_blocks': [2] });
    expect([...cut.tensors.keys()].toSorted()).toEqual(Object.keys({ ...embedders, ...blocks('m.double_blocks', 2, packed), ...blocks('m.single_blocks', 1, packed) }).toSorted());
    expect(() => pruneStacks(shapes(own), {})).toThrow(/at least one stack/);
    expect(() => pruneStacks(shapes(own), { 'm.blocks': [0] })).toThrow(/no blocks called m\.blocks\.0, .*; it has: m\.double_blocks \(4\), m\.single_blocks \(3\)/);
    expect(() => pruneStacks(shapes(own), { 'm.double_blocks': [4] })).toThrow(/indices from 0 to 3/);
    expect(() => pruneStacks(shapes({ 'a.0.b.0.w': [1], 'a.0.b.1.w': [1] }), { a: [0], 'a.0.b': [1] })).toThrow(/a contains another/);
  });

  it('reads nothing of a sharded checkpoint until it is written, and then what is kept alone', async () => {
    const value = (i: number) => writableTensor(Float32Array.of(i, i), [2]);
    const files: Record<string, Uint8Array> = {
      'm-1.safetensors': writeSafetensors([['blocks.0.w', value(0)], ['blocks.1.w', value(1)], ['head', value(9)]]),
      'm-2.safetensors': writeSafetensors([['blocks.2.w', value(2)], ['blocks.3.w', value(3)]]),
    };
    const map = Object.fromEntries(['blocks.0.w', 'blocks.1.w', 'head'].map((name) => [name, 'm-1.safetensors']).concat(['blocks.2.w', 'blocks.3.w'].map((name) => [name, 'm-2.safetensors'])));
    let reads: string[] = [];
    const open = async (file: string): Promise<Source> => {
      const source = bytesSource(files[file]!, file);
      return { ...source, read: (offset, length) => (reads.push(`${file}+${length}`), source.read(offset, length)) };
    };
    const state = await readShardedSafetensors(JSON.stringify({ weight_map: map }), 'index', open);
    reads = [];
    const found = findStacks(state);
    const cut = pruneStacks(state, { [found.chosen[0]!]: [1, 3] });
    expect(reads).toEqual([]);
    const written: [string, number][] = [];
    for (const [name, record] of cut.tensors) written.push([name, (await toFloat32(record))[0]!]);
    expect(written).toEqual([['blocks.0.w', 1], ['head', 9], ['blocks.1.w', 3]]);
    expect(reads).toEqual(['m-1.safetensors+8', 'm-1.safetensors+8', 'm-2.safetensors+8']);
  });

  it('is the same for a stack of one tensor a block', () => {
    expect([...pruneState(stateDictOf([0, 1, 2].map((i) => [`blocks.${i}.weight`, { shape: [1], values: Float32Array.of(i) }] as const)), 'blocks', [2]).tensors.keys()]).toEqual(['blocks.0.weight']);
  });
});

describe('prunedConfig', () => {
  const flux = { _class_name: 'FluxTransformer2DModel', num_layers: 19, num_single_layers: 38, axes_dims_rope: [16, 56, 56] };

  it('edits the depth of the stack that was cut', () => {
    const half = Array.from({ length: 19 }, (_, i) => 2 * i);
    expect(prunedConfig(flux, 'single_transformer_blocks', half)).toEqual({ ...flux, num_single_layers: 19 });
    expect(prunedConfig(prunedConfig(flux, 'single_transformer_blocks', half), 'transformer_blocks', [0, 18])).toEqual({ ...flux, num_layers: 2, num_single_layers: 19 });
    expect(flux.num_layers).toBe(19);
    expect(prunedConfig({ depth: 19, depth_single_blocks: 38 }, 'model.diffusion_model.single_blocks', [0])).toEqual({ depth: 19, depth_single_blocks: 1 });
    expect(prunedConfig({ num_layers: 28 }, 'blocks', [0, 1])).toEqual({ num_layers: 2 });
    expect(prunedConfig({ depth: 28, num_layers: 7 }, 'blocks', [0, 1])).toEqual({ depth: 2, num_layers: 7 });
    expect(prunedConfig({ num_mmdit_layers: 4, num_single_dit_layers: 32 }, 'single_transformer_blocks', [0, 31])).toEqual({ num_mmdit_layers: 4, num_single_dit_layers: 2 });
    expect(prunedConfig({ encoderDepth: 3, decoderDepth: 3 }, 'decoder_blocks', [1])).toEqual({ encoderDepth: 3, decoderDepth: 1 });
  });

  it('edits lists of layers', () => {
    expect(prunedConfig({ num_layers: 6, dual_attention_layers: [0, 1, 2, 3] }, 'transformer_blocks', [1, 3, 5])).toEqual({ num_layers: 3, dual_attention_layers: [0, 1] });
    expect(prunedConfig({ num_hidden_layers: 3, layer_types: ['full', 'sliding', 'none'], eos_token_id: [1, 2, 3] }, 'model.layers', [0, 2])).toEqual({ num_hidden_layers: 2, layer_types: ['full', 'none'], eos_token_id: [1, 2, 3] });
  });

  it('refuses what it does not know or what does not fit', () => {
    expect(() => prunedConfig(flux, 'trunk', [0])).toThrow(/it has: num_layers, num_single_layers/);
    expect(() => prunedConfig({ hidden_size: 8 }, 'blocks', [0])).toThrow(/as depth or num_layers; it has: no number of layers at all/);
    expect(() => prunedConfig(flux, 'transformer_blocks', [19])).toThrow(/ascending indices below 19, the configuration's num_layers/);
    expect(() => prunedConfig(flux, 'transformer_blocks', [])).toThrow(/ascending/);
  });
});

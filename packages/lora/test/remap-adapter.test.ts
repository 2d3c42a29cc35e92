import { createRng } from '@tinyfusion/core';
import { parseSafetensors } from '@tinyfusion/weights';
import { describe, expect, it } from 'vitest';
import { type LoraOptions, fromPeft, injectLora, remapAdapter, remapPeft, toPeft } from '../src/index.js';
import { Net, apart, output, randomise, saved } from './net.js';

/** A net without the blocks that are not kept, as surgery leaves it. */
function student(depth: number, kept: readonly number[]): Net {
  const net = new Net(depth);
  const stay = kept.map((i) => net.blocks[i]!);
  net.blocks.splice(0, depth, ...stay);
  return net;
}

/** A student cut from a teacher with the adapter on it and merged: what a remapped adapter must come to. */
async function cutFromAdapted(depth: number, kept: readonly number[], options: LoraOptions): Promise<Float32Array> {
  const teacher = new Net(depth);
  const adapters = injectLora(teacher, options);
  randomise(adapters.parameters(), 5);
  adapters.remove({ merged: true });
  const stay = kept.map((i) => teacher.blocks[i]!);
  teacher.blocks.splice(0, depth, ...stay);
  return output(teacher);
}

async function teachers(depth: number, options: LoraOptions) {
  const adapters = injectLora(new Net(depth), options);
  randomise(adapters.parameters(), 5);
  return adapters;
}

describe('adapters on pruned models', () => {
  const kept = [1, 4, 11];
  const options = { init: createRng(1), rank: 2, dora: true };

  it('one trained there is saved and loaded as on any model', async () => {
    const [net, again] = [student(12, kept), student(12, kept)];
    const adapters = injectLora(net, { init: createRng(1), rank: 2 });
    randomise(adapters.parameters(), 5);
    const { config, weights } = await toPeft(adapters);
    expect((await fromPeft(again, config, await parseSafetensors(weights))).paths).toEqual(['blocks.0.attn.qkv', 'blocks.0.mlp.fc1', 'blocks.1.attn.qkv', 'blocks.1.mlp.fc1', 'blocks.2.attn.qkv', 'blocks.2.mlp.fc1', 'head']);
    expect(await output(again)).toEqual(await output(net));
  });

  it("a teacher's is renamed: removed blocks are dropped, what is outside of the stack stays", async () => {
    const state = await saved((await teachers(12, options)).state());
    const remapped = remapAdapter(state, kept, 'blocks');
    expect([...remapped.tensors.keys()].filter((name) => name.endsWith('lora_A.weight'))).toEqual(['blocks.0.attn.qkv', 'blocks.0.mlp.fc1', 'blocks.1.attn.qkv', 'blocks.1.mlp.fc1', 'blocks.2.attn.qkv', 'blocks.2.mlp.fc1', 'head'].map((path) => `${path}.lora_A.weight`));
    expect(remapped.tensors.get('blocks.2.attn.qkv.lora_B.weight')).toBe(state.tensors.get('blocks.11.attn.qkv.lora_B.weight'));
    const net = student(12, kept);
    await injectLora(net, { ...options, init: 'zeros' }).load(remapped);
    expect(apart(await output(net), await cutFromAdapted(12, kept, options))).toBeLessThan(1e-6);
  });

  it("PEFT's files are remapped with the ranks and scales that patterns gave by the teacher's numbers", async () => {
    const own = { ...options, targets: /^blocks\.(0|4|11)\.|head/, rankPattern: { 'blocks.4.attn.qkv': 3, 'blocks.1.*': 5 }, alphaPattern: { '^blocks.11.mlp.fc1': 1, 'blocks.0.*': 9 } };
    const adapters = await teachers(12, own);
    const { config, weights } = await toPeft(adapters);
    const remapped = remapPeft(config, await parseSafetensors(weights), kept, 'blocks');
    expect(remapped.config).toMatchObject({ r: 2, use_dora: true, target_modules: ['blocks.1.attn.qkv', 'blocks.1.mlp.fc1', 'blocks.2.attn.qkv', 'blocks.2.mlp.fc1', 'head'], rank_pattern: { '^blocks\\.1\\.attn\\.qkv': 3 }, alpha_pattern: { '^blocks\\.2\\.mlp\\.fc1': 1 } });
    const net = student(12, kept);
    await fromPeft(net, remapped.config, remapped.state);
    expect(apart(await output(net), await cutFromAdapted(12, kept, own))).toBeLessThan(1e-6);
    await expect(fromPeft(student(12, kept), config, await parseSafetensors(weights))).rejects.toThrow(/no linear layers blocks\.4\.attn\.qkv.*remapPeft/);
  });

  it('keeps the prefix of names that have it', async () => {
    const { weights } = await toPeft(await teachers(3, options));
    const names = [...remapAdapter(await parseSafetensors(weights), [2], 'blocks').tensors.keys()];
    expect(names.filter((name) => name.includes('lora_B'))).toEqual(['base_model.model.blocks.0.attn.qkv.lora_B.weight', 'base_model.model.blocks.0.mlp.fc1.lora_B.weight', 'base_model.model.head.lora_B.weight']);
  });

  it('refuses a stack that the adapter does not know, which would leave every block its number; without blocks it stays as it is', async () => {
    const { config, weights } = await toPeft(await teachers(3, options));
    const state = await parseSafetensors(weights);
    const message = 'remapAdapter: stack is "block", expected a stack that the adapter has layers in: blocks; ';
    expect(() => remapPeft(config, state, [0, 2], 'block')).toThrow(message);
    expect(() => remapAdapter(state, [0, 2], 'block')).toThrow(message);
    const head = await saved((await teachers(3, { ...options, targets: 'head' })).state());
    expect([...remapAdapter(head, [0, 2], 'block').tensors.keys()]).toEqual([...head.tensors.keys()]);
  });

  it('refuses indices out of order, several stacks at once, and an adapter of which nothing is left', async () => {
    const state = await saved((await teachers(3, { ...options, targets: /blocks\.0/ })).state());
    expect(() => remapAdapter(state, [2, 1], 'blocks')).toThrow(/kept is \[2, 1\], expected ascending block indices/);
    expect(() => remapAdapter(state, [], 'blocks')).toThrow(/ascending/);
    expect(() => remapAdapter(state, [1], 'encoder_blocks,decoder_blocks')).toThrow(/call it once for each/);
    expect(() => remapAdapter(state, [1, 2], 'blocks')).toThrow(/no tensor of the adapter is on a layer that was kept/);
  });
});

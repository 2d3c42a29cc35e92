import { readFileSync } from 'node:fs';
import { type Rng, createRng } from '@tinyfusion/core';
import { Linear, Module, loadState, moduleAt, readState } from '@tinyfusion/nn';
import { type StateDict, type TensorRecord, parseSafetensors, stateDictOf, toFloat32 } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { type PeftConfig, fromPeft, injectLora, mergeIntoState, readPeftConfig, toPeft } from '../src/index.js';
import { Net, apart, onBackends, output, randomise, values } from './net.js';

/** What plain PyTorch gave; made by fixtures/peft_tiny.py. */
const fixture = await parseSafetensors(readFileSync(new URL('fixtures/peft_tiny.safetensors', import.meta.url)));
const cases = [...fixture.metadata.keys()].map((key) => key.replace(/\.config$/, ''));
const under = (prefix: string): StateDict => ({ tensors: new Map([...fixture.tensors].flatMap(([name, record]): [string, TensorRecord][] => (name.startsWith(prefix) ? [[name.slice(prefix.length), record]] : []))), metadata: new Map() });
const expected = (name: string): Promise<Float32Array> => toFloat32(fixture.tensors.get(name)!);
const tensor = async (name: string): Promise<tf.Tensor> => tf.tensor(await expected(name), [...fixture.tensors.get(name)!.shape]);
const configOf = (name: string): PeftConfig => JSON.parse(fixture.metadata.get(`${name}.config`)!) as PeftConfig;

class Part extends Module {
  [field: string]: unknown;
}

/** The fixture's network: its layers in a row with tanh between them. */
class Chain extends Part {
  readonly head: Linear;
  readonly blocks: Part[];
  constructor() {
    super();
    const linear = (inputs: number, outputs: number, bias = true): Linear => new Linear(inputs, outputs, { init: 'zeros', bias });
    this.blocks = [
      Object.assign(new Part(), { attn: Object.assign(new Part(), { qkv: linear(12, 36) }), mlp: Object.assign(new Part(), { fc1: linear(36, 20) }) }),
      Object.assign(new Part(), { attn: Object.assign(new Part(), { qkv: linear(20, 16, false) }) }),
    ];
    this.head = linear(16, 6);
  }
  forward(x: tf.Tensor): tf.Tensor {
    const paths = ['blocks.0.attn.qkv', 'blocks.0.mlp.fc1', 'blocks.1.attn.qkv', 'head'];
    return tf.tidy(() => paths.reduce((h, path, i) => {
      const y = (moduleAt(this, path) as Linear).forward(h);
      return i === 3 ? y : tf.tanh(y);
    }, x));
  }
}

async function chain(): Promise<Chain> {
  const net = new Chain();
  await loadState(net, under('base.'));
  return net;
}

/** A stream that gives the fixture's draws, in the order of the layers. */
async function draws(name: string): Promise<Rng | undefined> {
  const lists = await Promise.all([...fixture.tensors.keys()].filter((key) => key.startsWith(`${name}.u.`)).map(expected));
  return lists.length === 0 ? undefined : { ...createRng(0), uniform: (count: number) => Float32Array.from(lists.shift()!.subarray(0, count)) };
}

onBackends('adapters in PEFT files', () => {
  // float32 sums in another order, through four layers
  it.each(cases)('%s: a checkpoint without a model gets the same merged weights, alone and with a share of another', async (name) => {
    const base = under('base.');
    const saved = { config: configOf(name), state: under(`${name}.adapter.`) };
    const other = { config: configOf('lora'), state: under('lora.adapter.') };
    const net = await chain();
    const adapters = await fromPeft(net, saved.config, saved.state, { name: 'own' });
    const compare = async (adapted: StateDict): Promise<void> => {
      adapters.merge();
      for (const [key, { values: own }] of await readState(net)) expect(apart(await toFloat32(adapted.tensors.get(key)!), own), key).toBeLessThan(1e-6);
      adapters.unmerge();
    };
    await compare(mergeIntoState(base, [saved]));
    await fromPeft(adapters, other.config, other.state, { name: 'other' });
    adapters.setActive(['own', 'other'], [0.5, -0.25]);
    await compare(mergeIntoState(base, [{ ...saved, weight: 0.5 }, { ...other, weight: -0.25 }]));
  });

  it('are not put into a checkpoint that they do not fit', async () => {
    const saved = { config: configOf('lora'), state: under('lora.adapter.') };
    const without = (name: string): StateDict => ({ ...under('base.'), tensors: new Map([...under('base.').tensors].filter(([key]) => key !== name)) });
    expect(() => mergeIntoState(without('blocks.0.attn.qkv.weight'), [saved])).toThrow('the checkpoint has no weights of blocks.0.attn.qkv, which the adapter is on');
    expect(() => mergeIntoState(under('base.'), [{ ...saved, config: { ...saved.config, r: saved.config.r + 1, rank_pattern: {} } }])).toThrow(/the adapter has \[.*\] for blocks\.0\.attn\.qkv\.lora_A\.weight, expected/);
    expect(() => mergeIntoState(under('base.'), [{ ...saved, weight: NaN }])).toThrow('mergeIntoState: weight is NaN, expected a finite number');
  });

  it('are not written as float16 where a value would become infinite', async () => {
    const adapters = injectLora(new Net(), { init: createRng(0), rank: 2 });
    const [a] = adapters.parameters();
    tf.tidy(() => a!.assign(tf.mul(tf.onesLike(a!), 1e6)));
    await expect(toPeft(adapters, { dtype: 'F16' })).rejects.toThrow('blocks.0.attn.qkv.lora_A.weight has a value of 1000000, which F16 cannot hold');
    await toPeft(adapters);
  });

  it.each(cases)('%s: output, gradients and merged weights are those of PyTorch', async (name) => {
    const net = await chain();
    const adapters = await fromPeft(net, configOf(name), under(`${name}.adapter.`));
    const [x, target] = [await tensor('x'), await tensor('target')];
    const rng = await draws(name);
    if (rng !== undefined) adapters.train({ rng });
    expect(apart(await values(net.forward(x)), await expected(`${name}.y`))).toBeLessThan(1e-5);
    if (rng !== undefined) adapters.train({ rng: (await draws(name))! });
    const { grads } = tf.variableGrads(() => tf.sum(tf.mul(net.forward(x), target)), adapters.parameters());
    const state = [...adapters.state()];
    expect(state.map(([key]) => key).toSorted()).toEqual([...under(`${name}.grad.`).tensors.keys()].toSorted());
    for (const [key, variable] of state) expect(apart(await values(grads[variable.name]!), await expected(`${name}.grad.${key}`)), key).toBeLessThan(1e-5);
    adapters.eval();
    adapters.merge();
    const merged = await readState(net);
    for (const [key, record] of under(`${name}.merged.`).tensors) expect(apart(merged.get(key)!.values, await toFloat32(record)), key).toBeLessThan(1e-6);
  });

  it.each(cases)('%s: written and read again, it is the same to the bit', async (name) => {
    const adapters = await fromPeft(await chain(), configOf(name), under(`${name}.adapter.`));
    const { config, weights } = await toPeft(adapters, { baseModel: 'chain' });
    const state = await parseSafetensors(weights);
    expect([...state.tensors.keys()].toSorted()).toEqual([...under(`${name}.adapter.`).tensors.keys()].toSorted());
    for (const [key, record] of state.tensors) expect(await toFloat32(record), key).toEqual(await expected(`${name}.adapter.${key}`));
    expect(state.metadata.get('format')).toBe('pt');
    const { r, lora_alpha, use_dora = false, use_rslora = false, lora_dropout = 0, rank_pattern = {}, alpha_pattern = {} } = configOf(name);
    expect(config).toMatchObject({ peft_type: 'LORA', bias: 'none', task_type: null, base_model_name_or_path: 'chain', r, lora_alpha, use_dora, use_rslora, lora_dropout, rank_pattern, alpha_pattern });
    const again = await chain();
    const second = await fromPeft(again, JSON.stringify(config), state);
    expect(second.settings()).toEqual(adapters.settings());
    const x = await tensor('x');
    expect(await values(again.forward(x))).toEqual(await values((adapters.root as Chain).forward(x)));
  });
});

describe('target_modules that are written', () => {
  const written = async (targets: (path: string) => boolean) => (await toPeft(injectLora(new Net(), { init: 'zeros', targets }))).config.target_modules;
  it('are the ends of the paths where these say enough, else the paths, else a pattern', async () => {
    expect(await written(() => true)).toEqual(['fc1', 'head', 'qkv']);
    expect(await written((path) => path.startsWith('blocks.1.'))).toEqual(['blocks.1.attn.qkv', 'blocks.1.mlp.fc1']);
    class Twice extends Module {
      readonly inner = new Net();
      readonly head = new Linear(6, 4, { init: createRng(1) });
    }
    const adapters = injectLora(new Twice(), { init: 'zeros', targets: (path) => path === 'head' });
    const { config, weights } = await toPeft(adapters, { dtype: 'F16' });
    expect(config.target_modules).toBe('(head)'); // the name alone would mean inner.head too
    expect((await fromPeft(new Twice(), config, await parseSafetensors(weights))).paths).toEqual(['head']);
  });
});

describe('reading PEFT files', () => {
  const minimal = { peft_type: 'LORA', r: 2, lora_alpha: 4, target_modules: ['head'] };
  const tensors = (names: Record<string, number[]>): StateDict => stateDictOf(Object.entries(names).map(([name, shape]) => [name, { shape, values: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5) }]));
  const head = { 'base_model.model.head.lora_A.weight': [2, 6], 'base_model.model.head.lora_B.weight': [4, 2] };

  it("takes fields that are absent for PEFT's defaults, and newer ones where they are off", () => {
    expect(readPeftConfig({ peft_type: 'LORA', target_modules: ['q'], of_the_future: null, another: false, list: [], megatron_core: 'megatron.core', eva_config: { rho: 2 }, init_lora_weights: 'gaussian' })).toMatchObject({ r: 8, lora_alpha: 8, lora_dropout: 0, use_dora: false, use_rslora: false, rank_pattern: {}, target_modules: ['q'] });
  });

  it.each([
    [{ peft_type: 'IA3' }, /peft_type is "IA3", expected "LORA"/],
    [{ bias: 'all' }, /not supported: bias = "all"/],
    [{ modules_to_save: ['head'], lora_bias: true }, /not supported: modules_to_save = \["head"\], lora_bias = true/],
    [{ init_lora_weights: 'pissa_niter_16' }, /init_lora_weights = "pissa_niter_16"/],
    [{ layer_replication: [[0, 2]] }, /layer_replication/],
    [{ use_bdlora: { nblocks: 2 } }, /use_bdlora/],
    [{ fan_in_fan_out: true }, /fan_in_fan_out = true/],
    [{ alora_invocation_tokens: [1] }, /alora_invocation_tokens/],
    [{ r: 0 }, /out of range: LoraOptions\.rank is 0/],
    [{ r: '8' }, /r is "8", expected a number/],
    [{ rank_pattern: { head: 'x' } }, /rank_pattern is \{"head":"x"\}, expected numbers by pattern/],
    [{ rank_pattern: [4] }, /rank_pattern is \[4\]/],
    [{ alpha_pattern: { '.*': 4, '(?P<a>x)': 2 } }, /out of range: .*JavaScript understands/],
    [{ use_dora: 1 }, /use_dora is 1, expected true or false/],
    [{ target_modules: [1] }, /target_modules is \[1\]/],
    [{ layers_to_transform: 'all' }, /layers_to_transform is "all"/],
  ])('refuses %j by name', (fields, message) => {
    expect(() => readPeftConfig({ ...minimal, ...fields })).toThrow(message);
  });

  it('refuses what is no JSON object', () => {
    expect(() => readPeftConfig('{')).toThrow(/no JSON/);
    expect(() => readPeftConfig('[]')).toThrow(/no JSON object/);
    expect(() => readPeftConfig(null)).toThrow(/no JSON object/);
  });

  it.each<[string, object, Record<string, number[]>, RegExp]>([
    ['tensors of other kinds', {}, { ...head, 'base_model.model.emb.lora_embedding_A': [2, 6], 'base_model.model.head.lora_B.bias': [4] }, /2 tensors that are not LoRA's on linear layers: base_model\.model\.emb\.lora_embedding_A/],
    ['layers that the model has not', { target_modules: ['head', 'proj'] }, { ...head, 'proj.lora_A.weight': [2, 6] }, /no linear layers proj,.*remapPeft/],
    ['layers that the configuration does not mean', { target_modules: ['qkv'] }, head, /does not target: the two do not belong together/],
    ['layers that the configuration excludes', { exclude_modules: 'he.*' }, head, /does not target/],
    ['a file that is cut', { target_modules: ['head', 'qkv'] }, head, /targets blocks\.0\.attn\.qkv, blocks\.1\.attn\.qkv, for which its file has no tensors/],
    ['another rank', { r: 3 }, head, /\[2, 6\] for head\.lora_A\.weight, expected \[3, 6\]/],
    ['no B', {}, { 'head.lora_A.weight': [2, 6] }, /no head\.lora_B\.weight/],
    ['no magnitude', { use_dora: true }, head, /no head\.lora_magnitude_vector/],
    ['a magnitude too many', {}, { ...head, 'head.lora_magnitude_vector': [4] }, /no place for: head\.lora_magnitude_vector/],
    ['no tensors', {}, {}, /no tensors/],
    ["a pattern of Python's", { target_modules: '(?P<a>head)' }, head, /JavaScript does not understand/],
  ])('refuses %s, and leaves model and adapters as they were', async (_, fields, names, message) => {
    const net = new Net();
    const [before, count] = [await output(net), tf.memory().numTensors];
    await expect(fromPeft(net, { ...minimal, ...fields }, tensors(names))).rejects.toThrow(message);
    expect(await output(net)).toEqual(before);
    expect(tf.memory().numTensors).toBe(count);
    expect(net.parameters().length).toBe(8);
    const adapters = injectLora(net, { init: createRng(1), name: 'mine' });
    await expect(fromPeft(adapters, { ...minimal, ...fields }, tensors(names), { name: 'theirs' })).rejects.toThrow(message);
    expect(adapters.names).toEqual(['mine']);
    expect(net.parameters().length).toBe(10);
  });

  it('takes all-linear and chosen layers from the file, and adds to adapters that are there', async () => {
    const net = new Net();
    const adapters = injectLora(net, { init: createRng(1), name: 'mine' });
    randomise(adapters.parameters(), 2);
    const mine = await output(net);
    for (const [name, fields] of [['all', { target_modules: 'all-linear' }], ['chosen', { target_modules: ['head', 'qkv'], layers_to_transform: [7] }], ['any', { target_modules: null }]] as const) {
      expect(await fromPeft(adapters, { ...minimal, ...fields }, tensors(head), { name })).toBe(adapters);
      expect(adapters.pathsOf(name)).toEqual(['head']);
    }
    expect(await output(net)).toEqual(mine);
    adapters.setActive(['all']);
    const all = await output(net);
    adapters.setActive(['chosen']);
    expect(await output(net)).toEqual(all);
    expect(apart(all, mine)).toBeGreaterThan(0.01);
  });
});

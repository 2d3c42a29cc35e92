// Which configuration a checkpoint of a reference gets: what the file says, then what the name does, and never a guess.
import { CheckpointError, createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { readState } from '@tinyfusion/nn';
import { type StateDict, type TensorRecord, parseSafetensors, stateDictOf } from '@tinyfusion/weights';
import { beforeAll, describe, expect, it } from 'vitest';
import { type DiTConfig, createModel, ditConfig, ditToDiffusers, loadReference, marConfig, renamed, saveModel } from '../src/index.js';

beforeAll(async () => {
  await useBackend({ prefer: 'cpu' });
});

const tiny = { inputSize: 4, depth: 1, numClasses: 3 };

/** The tensors of a DiT or SiT, without a word about it. */
async function plain(name: 'DiT-S/2' | 'SiT-S/2' | 'DiT-B/2', changes: Partial<DiTConfig> = {}): Promise<StateDict> {
  const model = createModel(name, { init: 'zeros', changes: { ...tiny, ...changes } });
  const state = stateDictOf(await readState(model));
  model.dispose();
  return state;
}

describe('the number of heads', () => {
  it('is the preset’s where the width is', async () => {
    const model = await loadReference('DiT-S/2', await plain('DiT-S/2'));
    expect(model.config).toEqual({ ...ditConfig('DiT-S/2'), ...tiny });
    model.dispose();
  });

  it('is not taken from a preset of another width, and the one that fits is named', async () => {
    const wide = await plain('DiT-B/2');
    await expect(loadReference('DiT-XL/2', wide)).rejects.toThrow(/is 768 wide and DiT-XL\/2 1152: it fits DiT-B\/2; name it so/);
    await expect(loadReference('SiT-XL/2', wide)).rejects.toThrow(/it fits SiT-B\/2; name it so/);
    await expect(loadReference('DiT-XL/2', wide)).rejects.toBeInstanceOf(CheckpointError);
  });

  it('has to be given where no preset is as wide', async () => {
    const narrow = await plain('DiT-S/2', { hiddenSize: 96, numHeads: 4 });
    await expect(loadReference('DiT-XL/2', narrow)).rejects.toThrow(/is 96 wide and DiT-XL\/2 1152: as no published DiT is; give its number of heads.*changes: \{ numHeads \}/);
    const model = await loadReference('DiT-XL/2', narrow, { changes: { numHeads: 4 } });
    expect(model.config.numHeads).toBe(4);
    model.dispose();
  });

  it('of a MAR are two', async () => {
    const changes = { inputSize: 4, encoderDepth: 1, decoderDepth: 1, encoderWidth: 96, decoderWidth: 96, encoderHeads: 4, decoderHeads: 3, headDepth: 1, headWidth: 32, numClasses: 3, bufferSize: 4 };
    const mar = createModel('MAR-B', { init: createRng(0), changes });
    const state = stateDictOf(await readState(mar));
    mar.dispose();
    await expect(loadReference('MAR-B', state)).rejects.toThrow(/changes: \{ encoderHeads \}/);
    await expect(loadReference('MAR-B', state, { changes: { encoderHeads: 4 } })).rejects.toThrow(/changes: \{ decoderHeads \}/);
    const again = await loadReference('MAR-B', state, { changes: { encoderHeads: 4, decoderHeads: 3 } });
    expect(again.config).toEqual({ ...marConfig('MAR-B'), ...changes });
    again.dispose();
  });
});

describe('what a checkpoint of ours says of itself', () => {
  it('counts, whatever the name', async () => {
    const model = createModel('DiT-S/2', { init: createRng(0), changes: { ...tiny, hiddenSize: 96, numHeads: 4, mlpRatio: 2 } });
    const state = await parseSafetensors(await saveModel(model));
    const again = await loadReference('DiT-XL/2', state);
    expect(again.config).toEqual(model.config);
    await expect(loadReference('SiT-XL/2', state)).rejects.toThrow(/holds "DiT", expected "SiT"/);
    model.dispose();
    again.dispose();
  });

  it.each([['DiT-S/2', 'without a null class', { classDropoutProb: 0 }], ['SiT-S/2', 'without a null class', { classDropoutProb: 0 }]] as const)('counts of a %s %s', async (name, _, changes) => {
    const model = createModel(name, { init: createRng(0), changes: { ...tiny, ...changes } });
    const state = await parseSafetensors(await saveModel(model));
    const again = await loadReference(name, state);
    expect(again.config).toEqual(model.config);
    const untold = await loadReference(name, { ...state, metadata: new Map() }, { changes });
    expect(untold.config).toEqual(model.config);
    for (const one of [model, again, untold]) one.dispose();
  });

  it('counts of a MAR in larger patches than its name says', async () => {
    const changes = { inputSize: 4, patchSize: 2, inChannels: 3, encoderDepth: 1, decoderDepth: 1, encoderWidth: 24, decoderWidth: 24, encoderHeads: 4, decoderHeads: 3, headDepth: 1, headWidth: 32, numClasses: 3, bufferSize: 4 };
    const mar = createModel('MAR-B', { init: createRng(0), changes });
    const again = await loadReference('MAR-B', await parseSafetensors(await saveModel(mar)));
    expect(again.config).toEqual(mar.config);
    mar.dispose();
    again.dispose();
  });
});

describe('tensors that make no model', () => {
  it.each([
    ['a block far beyond the others', (tensors: Map<string, TensorRecord>) => tensors.set('blocks.3000.x', tensors.get('pos_embed')!), /unexpected \(1\): blocks\.3000\.x|missing/],
    ['a block without a number', (tensors: Map<string, TensorRecord>) => tensors.set('blocks.foo.x', tensors.get('pos_embed')!), /unexpected \(1\): blocks\.foo\.x/],
    ['patches of nothing', (tensors: Map<string, TensorRecord>) => tensors.set('x_embedder.proj.weight', { ...tensors.get('x_embedder.proj.weight')!, shape: [384, 4, 0, 0] }), /makes no DiT: DiTConfig\.\w+ is/],
    ['no patches', (tensors: Map<string, TensorRecord>) => tensors.delete('x_embedder.proj.weight'), /is no DiT: tensors are missing/],
  ] as const)('%s', async (_, spoil, message) => {
    const state = await plain('DiT-S/2');
    const tensors = new Map(state.tensors);
    spoil(tensors);
    const loading = loadReference('DiT-S/2', { ...state, tensors });
    await expect(loading).rejects.toThrow(message);
    await expect(loading).rejects.toBeInstanceOf(CheckpointError);
  });
});

describe('a DiT in diffusers’ names', () => {
  it.each([8, 4])('has the latents of %i that its position embedding says', async (inputSize) => {
    const state = await plain('DiT-S/2', { inputSize });
    const named = ditToDiffusers(state);
    const file = { ...named, tensors: new Map(named.tensors).set('pos_embed.pos_embed', state.tensors.get('pos_embed')!) };
    const back = renamed(file, 'upstream');
    expect(back.tensors.get('pos_embed')!.shape).toEqual([1, (inputSize / 2) ** 2, 384]);
    expect(await back.tensors.get('pos_embed')!.read()).toEqual(await state.tensors.get('pos_embed')!.read());
    const model = await loadReference('DiT-S/2', file);
    expect(model.config.inputSize).toBe(inputSize);
    model.dispose();
    expect(() => renamed(file, 'upstream', { inputSize: 32 })).toThrow(`pos_embed.pos_embed is that of latents of ${inputSize}, and inputSize is 32`);
  });

  it('without one has those that are said, those of its own metadata, or else 256×256’s', async () => {
    const state = await plain('DiT-S/2', { inputSize: 8 });
    const named = ditToDiffusers(state);
    const tokens = (file: StateDict, inputSize?: number): number => renamed(file, 'upstream', { inputSize }).tensors.get('pos_embed')!.shape[1]!;
    expect([tokens(named), tokens(named, 64)]).toEqual([256, 1024]);
    const ours = { ...named, metadata: new Map([['tinyfusion.model', JSON.stringify({ type: 'DiT', config: ditConfig('DiT-S/2', { ...tiny, inputSize: 8 }) })]]) };
    expect([tokens(ours), tokens(ours, 64)]).toEqual([16, 1024]);
    const model = await loadReference('DiT-S/2', ours);
    expect(model.config.inputSize).toBe(8);
    model.dispose();
    expect(() => tokens(named, 7)).toThrow('inputSize is 7, expected a positive multiple of the patch size 2');
    expect(() => tokens({ ...named, metadata: new Map([['tinyfusion.model', '{"config":{"inputSize":1e7}}']]) })).toThrow(/latents of 10000000 cannot be cut/);
  });

  it('whose position embedding is no square’s is refused', async () => {
    const state = await plain('DiT-S/2');
    const { tensors, metadata } = ditToDiffusers(state);
    const file = { metadata, tensors: new Map(tensors).set('pos_embed.pos_embed', { ...state.tensors.get('pos_embed')!, shape: [1, 3, 384] }) };
    await expect(loadReference('DiT-S/2', file)).rejects.toThrow('pos_embed.pos_embed is [1, 3, 384], expected [1, T, 384]');
  });
});

it('a name that is none is refused with all that are', async () => {
  await expect(loadReference('DiT-XXL/2', await plain('DiT-S/2'))).rejects.toThrow(/expected one of DiT-S\/2.*MAR-H.*the nearest is DiT-XL\/2/);
});

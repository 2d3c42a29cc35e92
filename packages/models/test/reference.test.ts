// Which configuration a checkpoint of a reference gets: what the file says, then what the name does, and never a guess.
import { CheckpointError, createRng } from '@tinyfusion/core';
import { useBackend } from '@tinyfusion/kernels';
import { readState } from '@tinyfusion/nn';
import { type StateDict, parseSafetensors, stateDictOf } from '@tinyfusion/weights';
import { beforeAll, describe, expect, it } from 'vitest';
import { type DiTConfig, createModel, ditConfig, loadReference, marConfig, saveModel } from '../src/index.js';

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
});

it('a name that is none is refused with all that are', async () => {
  await expect(loadReference('DiT-XXL/2', await plain('DiT-S/2'))).rejects.toThrow(/expected one of DiT-S\/2.*MAR-H.*the nearest is DiT-XL\/2/);
});

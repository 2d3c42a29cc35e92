import { CheckpointError } from '@tinyfusion/core';
import { parseSafetensors, stateDictHash, stateDictOf, toFloat32, writableTensor, writeSafetensors } from '@tinyfusion/weights';
import { describe, expect, it } from 'vitest';
import { type PruneRecord, belongTogether, describeRecord, layerMapOf, pruneMetadata, pruneState, readPruneRecord, renumbered, stackDepth, withHoles } from '../src/index.js';

const [a, b, c] = ['a', 'b', 'c'].map((letter) => letter.repeat(64)) as [string, string, string];
const plain: PruneRecord = { version: 1, stack: 'blocks', kept: [0, 3], depth: 4, criterion: 'oracle', teacher: { name: 'DiT-S/2', sha256: a } };
const full: PruneRecord = {
  ...plain,
  depth: 8,
  kept: [0, 1, 2, 5],
  criterion: 'learned',
  groups: [[3, 4], [1, 4]],
  confidence: [0.99, 0.5],
  layerMap: [[2, 3], [3, 7]],
  branches: { attention: [1], mlp: [0, 5] },
  replaced: [[3, 5], [6, 8]],
  seed: 7,
  command: 'tinyfusion prune --masks masks.json',
  learnedBy: 'tinyfusion learn-masks --seed 7',
  from: { ...plain, teacher: { name: 'DiT-XL/2', sha256: b } },
};

describe('the prune record', () => {
  it('carries everything through a checkpoint', async () => {
    const bytes = writeSafetensors([['x', writableTensor(Float32Array.of(1), [1])]], [pruneMetadata(full)]);
    expect(readPruneRecord((await parseSafetensors(bytes)).metadata)).toEqual(full);
    // the same cut is the same file
    expect(writeSafetensors([['x', writableTensor(Float32Array.of(1), [1])]], [pruneMetadata(structuredClone(full))])).toEqual(bytes);
    expect(layerMapOf(plain)).toEqual([[0, 0], [1, 3]]);
    expect(layerMapOf(full)).toEqual([[2, 3], [3, 7]]);
  });

  it.each([
    [{ groups: [[3, 2]] }, 'N ≤ M'],
    [{ groups: [3] }, 'pairs'],
    [{ confidence: ['1'] }, 'confidence'],
    [{ layerMap: [[2, 0]] }, 'below 2'],
    [{ layerMap: [[1, 0], [0, 3]] }, 'ascending'],
    [{ layerMap: [[0, 4]] }, "teacher's below 4"],
    [{ branches: { attention: [1] } }, 'kept blocks'],
    [{ branches: { mlp: [3, 0] } }, 'ascending'],
    [{ replaced: [[2, 4]] }, 'without kept blocks'],
    [{ replaced: [[1, 1]] }, 'without kept blocks'],
    [{ seed: 0.5 }, 'seed'],
    [{ command: 1 }, 'command'],
  ])('is refused with %j', (change, message) => {
    const write = (): unknown => pruneMetadata({ ...plain, ...change } as PruneRecord);
    expect(write).toThrow(message);
    expect(write).toThrow(CheckpointError);
  });

  it('is refused where it has no end', () => {
    let record = plain;
    for (let i = 0; i < 70; i++) record = { ...plain, from: record };
    expect(() => pruneMetadata(record)).toThrow(/more than 64 teachers/);
  });

  it('can be read by people', () => {
    expect(describeRecord(plain)).toBe('2 of 4 blocks (0, 3), cut from DiT-S/2 (aaaaaaaaaaaa…), chosen by oracle.');
    expect(describeRecord(full)).toBe(
      '4 of 8 blocks (0–2, 5), cut from DiT-S/2 (aaaaaaaaaaaa…), learned in groups of 3:4 and 1:4; the choice was 50 % sure in its least sure group, 75 % in the mean; ' +
        "in distillation its blocks follow the teacher's as 2→3 3→7; attention is left out of 1; the MLP is left out of 0, 5; linear maps stand for 3, 4 and 6, 7; seed 7; learned by: tinyfusion learn-masks --seed 7; made by: tinyfusion prune --masks masks.json. " +
        'The teacher was itself cut: 2 of 4 blocks (0, 3), cut from DiT-XL/2 (bbbbbbbbbbbb…), chosen by oracle.',
    );
    expect(describeRecord({ ...plain, groups: [[1, 2], [1, 2]] })).toContain('in groups of 1:2');
  });

  it('says whether a teacher is its own, and if not, whose', async () => {
    expect(belongTogether(full, a)).toEqual({ ok: true });
    expect(belongTogether(full, a.toUpperCase())).toEqual({ ok: true });
    const state = stateDictOf([['x', { shape: [1], values: Float32Array.of(1) }]]);
    const own = await stateDictHash(state);
    expect(belongTogether({ ...plain, teacher: { name: 't', sha256: own } }, own).ok).toBe(true);
    expect(belongTogether(full, b)).toMatchObject({ ok: false, reason: expect.stringMatching(/this teacher is DiT-XL\/2, from which that one was cut in turn: its layers are numbered differently/) as string });
    expect(belongTogether(full, c)).toMatchObject({ ok: false, reason: expect.stringMatching(/cut from DiT-S\/2 \(aaaaaaaaaaaa…\), this teacher is another model \(cccccccccccc…\)/) as string });
    expect(belongTogether(full, 'abc')).toMatchObject({ ok: false, reason: expect.stringMatching(/no SHA-256/) as string });
  });
});

describe('numbering', () => {
  const tensor = (v: number) => ({ shape: [1], values: Float32Array.of(v) });
  const whole = stateDictOf([['x', tensor(-1)], ...Array.from({ length: 12 }, (_, i) => [`m.blocks.${i}.fc.weight`, tensor(i)] as const)], [['note', 'n']]);
  const values = async (state: typeof whole): Promise<Record<string, number>> => Object.fromEntries(await Promise.all([...state.tensors].map(async ([name, record]) => [name, (await toFloat32(record))[0]!] as const)));

  it('goes to holes and back', async () => {
    const kept = [0, 3, 5, 10, 11];
    const cut = pruneState(whole, 'm.blocks', kept);
    const holes = withHoles(cut, 'm.blocks', kept);
    expect(await values(holes)).toEqual({ x: -1, ...Object.fromEntries(kept.map((k) => [`m.blocks.${k}.fc.weight`, k])) });
    const back = renumbered(holes, 'm.blocks');
    expect(back.kept).toEqual(kept);
    expect(await values(back.state)).toEqual(await values(cut));
    expect(back.state.metadata.get('note')).toBe('n');
    // without holes nothing changes
    expect(renumbered(cut, 'm.blocks').kept).toEqual([0, 1, 2, 3, 4]);
    expect(stackDepth(holes, 'm.blocks', { holes: true })).toBe(5);
    expect(() => stackDepth(holes, 'm.blocks')).toThrow(/none numbered 1; a tool may have cut it without renumbering, which renumbered/);
    expect(() => pruneState(holes, 'm.blocks', [0])).toThrow(/none numbered 1/);
  });

  it('refuses numbers that do not fit', () => {
    const cut = pruneState(whole, 'm.blocks', [1, 2]);
    expect(() => withHoles(cut, 'm.blocks', [1])).toThrow(/original numbers of the stack's 2 blocks/);
    expect(() => withHoles(cut, 'm.blocks', [2, 1])).toThrow(/ascending/);
    expect(() => renumbered(cut, 'blocks')).toThrow(/no blocks called blocks\.0, blocks\.1, …; it has: m\.blocks \(2\)/);
  });
});

// Checkpoint files written by others, good and bad, as files/manifest.json lists them.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointError } from '@tinyfusion/core';
import { type StateDict, bytesSource, parseSafetensors, readCheckpoint, readSafetensors, toFloat32 } from '@tinyfusion/weights';
import { describe, expect, it } from 'vitest';
import { goldenFolder } from './harness.js';

const folder = join(goldenFolder, 'files');
const read = (file: string): Uint8Array => new Uint8Array(readFileSync(join(folder, file)));
interface Case {
  file: string;
  kind: string;
  expect: string;
  expected?: string;
  info?: string;
}
const types: Readonly<Record<string, string>> = {
  // PyTorch's names
  float64: 'F64', float32: 'F32', float16: 'F16', bfloat16: 'BF16', int64: 'I64', int32: 'I32', int16: 'I16', int8: 'I8', uint8: 'U8', bool: 'BOOL',
  // numpy's
  f8: 'F64', f4: 'F32', f2: 'F16', i8: 'I64', i4: 'I32', i2: 'I16', i1: 'I8', u8: 'U64', u4: 'U32', u2: 'U16', u1: 'U8', b1: 'BOOL',
};

describe.skipIf(!existsSync(join(folder, 'manifest.json')))('checkpoint files', () => {
  const { files } = existsSync(join(folder, 'manifest.json')) ? (JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as { files: Case[] }) : { files: [] };
  it.each(files)('$file ($kind): $expect', async ({ file, kind, expect: outcome, expected: reference, info }) => {
    const open = async (): Promise<StateDict> => {
      const source = bytesSource(read(file), file);
      const state = await (kind === 'safetensors' ? readSafetensors(source) : readCheckpoint(source));
      for (const record of state.tensors.values()) await record.read();
      return state;
    };
    if (outcome === 'error') {
      const error = await open().catch((e: unknown) => e);
      expect(error).toBeInstanceOf(CheckpointError);
      expect((error as Error).message).toContain(file);
      return;
    }
    const state = await open();
    const expected = await parseSafetensors(read(reference ?? `${file}.expected.safetensors`));
    expect([...state.tensors.keys()].toSorted()).toEqual([...expected.tensors.keys()].toSorted());
    const described = info === undefined ? {} : ((JSON.parse(readFileSync(join(folder, info), 'utf8')) as { tensors?: Record<string, { dtype?: string; values?: string[] }> }).tensors ?? {});
    for (const [name, record] of expected.tensors) {
      const got = state.tensors.get(name)!;
      expect(got.shape, name).toEqual(record.shape);
      expect(await toFloat32(got), name).toEqual(await toFloat32(record));
      const { dtype, values } = described[name] ?? {};
      if (dtype !== undefined && kind !== 'safetensors') expect(got.dtype, name).toBe(types[dtype.replace(/^[<>|=]/, '')]);
      if (values !== undefined && got.dtype === 'I64') expect(Array.from(new BigInt64Array((await got.read()).slice().buffer), String), name).toEqual(values);
    }
  });
});

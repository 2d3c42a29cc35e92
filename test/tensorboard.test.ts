// Events as TensorBoard reads them: the records are taken apart here by the format's own rules, with nothing of the writer.
import { mkdtempSync, readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RunFolder } from '@tinyfusion/recipes/node';
import { parseSafetensors, writableTensor, writeSafetensors } from '@tinyfusion/weights';
import { expect, it } from 'vitest';

/** CRC-32C by bits, as RFC 3720 defines it. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (0x82f63b78 & -(crc & 1));
  }
  return ~crc >>> 0;
}
const masked = (bytes: Uint8Array): number => {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
};

type Message = Map<number, (number | Uint8Array)[]>;

/** The fields of a protocol buffer by number; fixed ones as their bytes. */
function fields(bytes: Uint8Array): Message {
  const out: Message = new Map();
  let at = 0;
  const varint = (): number => {
    let [value, scale] = [0, 1];
    for (;;) {
      const byte = bytes[at++]!;
      value += (byte & 127) * scale;
      scale *= 128;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const [field, type] = [key >> 3, key & 7];
    const size = type === 1 ? 8 : type === 5 ? 4 : type === 2 ? varint() : 0;
    const value = type === 0 ? varint() : bytes.subarray(at, (at += size));
    out.set(field, [...(out.get(field) ?? []), value]);
  }
  return out;
}

function recordsOf(path: string): Message[] {
  const file = new Uint8Array(readFileSync(path));
  const view = new DataView(file.buffer);
  const records: Message[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(view.getBigUint64(at, true));
    expect(view.getUint32(at + 8, true)).toBe(masked(file.subarray(at, at + 8)));
    const data = file.subarray(at + 12, at + 12 + length);
    expect(view.getUint32(at + 12 + length, true)).toBe(masked(data));
    records.push(fields(data));
    at += 16 + length;
  }
  return records;
}

const text = (value: unknown): string => new TextDecoder().decode(value as Uint8Array);
/** Scalars of a record by tag, and sizes of its images. */
function valuesOf(record: Message): Record<string, unknown> {
  const summary = record.get(5)?.[0];
  if (summary === undefined) return {};
  return Object.fromEntries(
    (fields(summary as Uint8Array).get(1) ?? []).map((bytes) => {
      const value = fields(bytes as Uint8Array);
      const image = value.get(4)?.[0];
      if (image !== undefined) {
        const parts = fields(image as Uint8Array);
        return [text(value.get(1)![0]), [parts.get(1)![0], parts.get(2)![0], parts.get(3)![0], text((parts.get(4)![0] as Uint8Array).subarray(1, 4))]];
      }
      const scalar = (value.get(2)![0] as Uint8Array).slice();
      return [text(value.get(1)![0]), new Float32Array(scalar.buffer)[0]];
    }),
  );
}

it('the reader here knows the check value of CRC-32C', () => {
  expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283);
});

it('a run’s numbers, layers and samples are in its TensorBoard files; one that goes on says from where', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'board-')), 'run');
  const png = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0, 1, 2);
  const take = async (steps: readonly number[]): Promise<void> => {
    await using run = await RunFolder.open(path, { task: 'train' }, { command: 'a test', every: 2 });
    const { onProgress, onDetail, checkpoint } = run.checkpointing(async () => Uint8Array.of(1), {}, { samples: { every: 4, draw: async () => ({ png, width: 300, height: 7, channels: 3 }) } });
    for (const step of steps) {
      onProgress!({ task: 'train', step, total: 100_000, unit: 'step', values: { loss: step / 4, mse: Number.NaN } });
      onDetail!(step, { 'gate 3': 0.25 });
      if (step % 2 === 0) await checkpoint!.save(step, step, await parseSafetensors(writeSafetensors([['x', writableTensor(Float32Array.of(step), [1])]])));
    }
  };
  await take([1, 2, 3]);
  await take([3, 4, 70_000]);
  const files = readdirSync(join(path, 'tensorboard')).toSorted((a, b) => Number(a.split('.').at(-1)) - Number(b.split('.').at(-1)));
  expect(files).toHaveLength(2);
  for (const name of files) expect(name).toMatch(/^events\.out\.tfevents\.\d+\..*\.\d+\.\d+$/);
  const [first, second] = files.map((name) => recordsOf(join(path, 'tensorboard', name)));
  expect(text(first![0]!.get(3)![0])).toBe('brain.Event:2');
  expect(text(second![0]!.get(3)![0])).toBe('brain.Event:2');
  const time = new Float64Array((first![1]!.get(1)![0] as Uint8Array).slice().buffer)[0]!;
  expect(Math.abs(time - Date.now() / 1000)).toBeLessThan(60);
  const restart = second![1]!;
  expect(restart.get(2)).toEqual([3]);
  expect(fields(restart.get(7)![0] as Uint8Array).get(1)).toEqual([1]); // SessionLog.START: TensorBoard drops what was from step 3 on
  expect(second!.slice(2).map((record) => [record.get(2)![0], valuesOf(record)])).toEqual([
    [3, { loss: 0.75, mse: Number.NaN }],
    [3, { 'gate/3': 0.25 }],
    [4, { loss: 1, mse: Number.NaN }],
    [4, { 'gate/3': 0.25 }],
    [4, { samples: [7, 300, 3, 'PNG'] }],
    [70_000, { loss: 17_500, mse: Number.NaN }],
    [70_000, { 'gate/3': 0.25 }],
    [70_000, { samples: [7, 300, 3, 'PNG'] }],
  ]);
  expect(readdirSync(path).filter((name) => name.startsWith('samples'))).toEqual(['samples-000004.png', 'samples-070000.png']);
});

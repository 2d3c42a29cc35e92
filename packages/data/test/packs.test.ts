import { appendFileSync, existsSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@tinyfusion/core';
import { Pack, type PackCache, type PackDescription, type PackItem, PackWriter, packBatches } from '@tinyfusion/data/node';
import { encodeFloat32 } from '@tinyfusion/weights';
import { describe, expect, it, vi } from 'vitest';

const description: PackDescription = { kind: 'latents', shape: [2, 2, 4], views: 2, classNames: ['a', 'b', 'c'], perShard: 4, source: { from: 'a test' } };
const fresh = (): string => join(mkdtempSync(join(tmpdir(), 'pack-')), 'pack');
/** Sample `place`: its number in the plain view, and a half more in the flipped one. */
const item = (place: number): PackItem => ({ place, label: place % 3, bytes: encodeFloat32(Float32Array.from({ length: 32 }, (_, i) => place + (i < 16 ? 0 : 0.5)), 'F16') });
const items = (from: number, to: number): PackItem[] => Array.from({ length: to - from }, (_, i) => item(from + i));

async function made(count: number, changes: Partial<PackDescription> = {}): Promise<string> {
  const folder = fresh();
  await using writer = await PackWriter.open(folder, { ...description, ...changes });
  await writer.add(items(0, count));
  await writer.finish();
  return folder;
}

describe('a pack', () => {
  it('gives back any view of any sample, at once or not', async () => {
    const folder = await made(10);
    expect(readdirSync(folder).toSorted()).toEqual(['pack.json', 'shard-00000.safetensors', 'shard-00001.safetensors', 'shard-00002.safetensors']);
    using pack = await Pack.open(folder);
    expect(pack.count).toBe(10);
    expect([...pack.labels]).toEqual([0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
    const picks = [{ index: 9, view: 1 }, { index: 0 }, { index: 4, view: 1 }];
    const wanted = encodeFloat32(Float32Array.from({ length: 48 }, (_, i) => [9.5, 0, 4.5][Math.floor(i / 16)]!), 'F16');
    expect(await pack.read(picks)).toEqual(wanted);
    expect(pack.readSync(picks)).toEqual(wanted);
    await expect(pack.read([{ index: 10 }])).rejects.toThrow('from 0 to 9');
    expect(() => pack.readSync([{ index: 0, view: 2 }])).toThrow('from 0 to 1');
  });

  it('goes on after a kill at any byte, and is the same in the end', async () => {
    const whole = await made(11);
    const folder = fresh();
    const rng = createRng(4);
    for (let turn = 0; ; turn++) {
      await using writer = await PackWriter.open(folder, description);
      expect(writer.next).toBe(writer.count);
      if (turn > 0) expect(writer.count).toBeGreaterThan(0);
      const [next] = [writer.next];
      if (next === 11) {
        await writer.finish();
        break;
      }
      await writer.add(items(next, Math.min(11, next + 3)));
      await writer.close().catch(() => {});
      // a write that was cut off, or never came to its end
      const part = readdirSync(folder).find((name) => name.endsWith('.part'));
      if (part !== undefined && turn % 2 === 0) appendFileSync(join(folder, part), Uint8Array.from(rng.uniform(1 + 3 * turn), (u) => 256 * u));
      if (part !== undefined && turn % 3 === 1 && statSync(join(folder, part)).size > 20) truncateSync(join(folder, part), statSync(join(folder, part)).size - 5);
      writeFileSync(join(folder, 'shard-00000.safetensors.1234abcd.part'), 'half of a shard');
    }
    const names = (path: string): string[] => readdirSync(path).filter((name) => name !== 'lock').toSorted();
    expect(names(folder)).toEqual(names(whole));
    for (const name of names(whole)) expect(readFileSync(join(folder, name)), name).toEqual(readFileSync(join(whole, name)));
    // once more does nothing
    await using writer = await PackWriter.open(folder, description);
    expect([writer.complete, writer.count]).toEqual([true, 11]);
  });

  it('is refused where it is another, not whole, or not a pack', async () => {
    const folder = await made(5);
    await expect(PackWriter.open(folder, { ...description, views: 1, source: { from: 'elsewhere' } })).rejects.toThrow(/views was 2 and is 1; from was "a test" and is "elsewhere"/);
    await expect(Pack.open(join(folder, 'nowhere'))).rejects.toThrow('is no pack');
    const other = mkdtempSync(join(tmpdir(), 'pack-'));
    writeFileSync(join(other, 'thesis.tex'), '');
    await expect(PackWriter.open(other, description)).rejects.toThrow('thesis.tex');
    const begun = fresh();
    const writer = await PackWriter.open(begun, description);
    await writer.add(items(0, 2));
    await writer.close();
    await expect(Pack.open(begun)).rejects.toThrow('not whole yet');
    writeFileSync(join(begun, 'pack.json'), '{"version":1');
    await expect(Pack.open(begun)).rejects.toThrow('no description of a pack');
    rmSync(join(folder, 'shard-00001.safetensors'));
    await expect(Pack.open(folder)).rejects.toThrow('a shard is missing');
  });

  it('tells a sample that was changed, and a pack that was made of other ones', async () => {
    const [folder, same] = [await made(5), await made(5)];
    const path = join(folder, 'shard-00001.safetensors');
    const bytes = readFileSync(path);
    bytes[bytes.length - 1]! ^= 1; // the flipped view of the last sample
    writeFileSync(path, bytes);
    using pack = await Pack.open(folder);
    await expect(pack.read([{ index: 4, view: 1 }])).rejects.toThrow(/sample 4 in .*shard-00001\.safetensors is not what was written/);
    await pack.read([{ index: 4, view: 0 }, { index: 3, view: 1 }]);
    using first = await Pack.open(same);
    using other = await Pack.open(await made(6));
    expect(first.fingerprint).toBe(pack.fingerprint);
    expect(other.fingerprint).not.toBe(first.fingerprint);
    await expect(made(3, { classNames: ['a'] })).rejects.toThrow('label 1, expected 0 to 0');
  });

  it('takes no more once it is whole', async () => {
    const folder = fresh();
    await using writer = await PackWriter.open(folder, description);
    await writer.add(items(0, 5));
    await writer.finish();
    const whole = readdirSync(folder);
    await expect(writer.add(items(5, 10))).rejects.toThrow('PackWriter.complete is true, expected false');
    expect([readdirSync(folder), writer.count, writer.next]).toEqual([whole, 5, 5]);
    await using again = await PackWriter.open(folder, description);
    await expect(again.add(items(20, 22))).rejects.toThrow('PackWriter.complete is true');
  });

  it('is as it was where samples are refused', async () => {
    const folder = fresh();
    await using writer = await PackWriter.open(folder, description);
    await writer.add(items(0, 2));
    await expect(writer.add([item(2), { ...item(3), label: 7 }])).rejects.toThrow('sample 3 has label 7');
    await expect(writer.add([item(2), item(2)])).rejects.toThrow('PackItem.place is 2, expected an integer of 3 or more');
    await expect(writer.add([{ ...item(2), place: Number.NaN }])).rejects.toThrow('PackItem.place is NaN');
    expect([writer.count, writer.next]).toEqual([2, 2]);
    await writer.add(items(2, 4));
    expect([writer.count, writer.next]).toEqual([4, 4]);
  });

  it('goes on from what is on disk where a write fails', async () => {
    const folder = fresh();
    await using writer = await PackWriter.open(folder, description);
    await writer.add(items(0, 2));
    const part = join(folder, 'shard-00000.safetensors.part');
    const { size } = statSync(part);
    await using handle = await open(part);
    const files = Object.getPrototypeOf(handle) as FileHandle;
    const { write } = files;
    // a system may write less than it is given; then the disk is full
    vi.spyOn(files, 'write')
      .mockImplementationOnce(function some(this: FileHandle, bytes: Uint8Array, at: number, _: number, position: number) {
        return Reflect.apply(write, this, [bytes, at, 100, position]) as never;
      } as never)
      .mockRejectedValueOnce(Object.assign(new Error('no space'), { code: 'ENOSPC' }));
    await expect(writer.add(items(2, 6))).rejects.toThrow('the disk is full; make room');
    expect([writer.count, writer.next, statSync(part).size]).toEqual([2, 2, size]);
    vi.restoreAllMocks();
    await writer.add(items(2, 7));
    await writer.finish();
    using pack = await Pack.open(folder);
    expect([pack.count, pack.fingerprint]).toEqual([7, (await Pack.open(await made(7))).fingerprint]);
  });

  it('is closed once, after what is being read, and not read afterwards', async () => {
    const folder = await made(5);
    const opened = (): number => readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder);
      } catch {
        return false; // the listing's own
      }
    }).length;
    const pack = await Pack.open(folder);
    const wanted = pack.readSync([{ index: 4 }, { index: 1 }]);
    if (existsSync('/proc/self/fd')) expect(opened()).toBe(2);
    const reading = pack.read([{ index: 4 }, { index: 1 }]);
    pack.close();
    pack.close();
    expect(await reading).toEqual(wanted);
    pack.close();
    if (existsSync('/proc/self/fd')) expect(opened()).toBe(0);
    expect(() => pack.readSync([{ index: 0 }])).toThrow('Pack.read: the pack is "closed", expected one that is open');
    await expect(pack.read([{ index: 0 }])).rejects.toThrow('Pack.read: the pack is "closed"');
  });
});

describe('batches of a pack', () => {
  const numbers = ({ values }: { values: Float32Array }): number[] => [...values].filter((_, i) => i % 16 === 0);

  it('take every sample once an epoch in a new order, in a view that is drawn', async () => {
    using pack = await Pack.open(await made(12));
    const batches = packBatches(pack, 4, createRng(1));
    const epochs: number[][] = [];
    for (let epoch = 0; epoch < 6; epoch++) {
      const seen: number[] = [];
      for (let i = 0; i < 3; i++) {
        if ((epoch + i) % 2 === 0) await batches.ready(); // read before, or at once
        const batch = batches.next();
        seen.push(...numbers(batch));
        expect([...batch.labels]).toEqual(numbers(batch).map((v) => Math.floor(v) % 3));
      }
      expect(seen.map(Math.floor).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 12 }, (_, i) => i));
      epochs.push(seen);
    }
    expect(new Set(epochs.map(String)).size).toBe(6);
    const flipped = epochs.flat().filter((v) => v % 1 === 0.5).length;
    expect(flipped).toBeGreaterThan(20);
    expect(flipped).toBeLessThan(52);
    // the views of a sample are not the same in each epoch
    expect(new Set(epochs.map((seen) => seen.find((v) => Math.floor(v) === 7))).size).toBe(2);
  });

  it('go on from a position, and are shared among ranks without overlap', async () => {
    using pack = await Pack.open(await made(13));
    const whole = packBatches(pack, 5, createRng(3));
    const shares = [{ start: 0, size: 2 }, { start: 2, size: 2 }, { start: 4, size: 1 }].map((rows) => packBatches(pack, 5, createRng(3), { rows }));
    for (let i = 0; i < 7; i++) {
      const resumed = packBatches(pack, 5, JSON.parse(JSON.stringify(whole.position())) as ReturnType<typeof whole.position>);
      const batch = numbers(whole.next());
      expect(shares.flatMap((share) => numbers(share.next()))).toEqual(batch);
      expect(numbers(resumed.next())).toEqual(batch);
      for (const share of shares) expect(share.position()).toEqual(whole.position());
    }
    for (const rows of [{ start: 4, size: 2 }, { start: 0.5, size: 2 }]) expect(() => packBatches(pack, 5, createRng(3), { rows })).toThrow('inside of the batch');
    expect(() => packBatches(pack, 4, whole.position())).toThrow('BatchPosition.batchSize is 5, expected 4');
    expect(() => packBatches(pack, 14, createRng(3))).toThrow('the 13 items there are');
  });

  it('do not hang on what else is drawn from the stream', async () => {
    using pack = await Pack.open(await made(8));
    const rng = createRng(3);
    const batches = packBatches(pack, 4, rng);
    const alone = packBatches(pack, 4, createRng(3));
    for (let i = 0; i < 6; i++) {
      const resumed = packBatches(pack, 4, batches.position());
      if (i % 2 === 0) await batches.ready();
      const next = numbers(batches.next());
      expect(next).toEqual(numbers(alone.next()));
      expect(next).toEqual(numbers(resumed.next()));
      rng.normal(3);
    }
  });

  it('of two packs may share what was read', async () => {
    const packOf = async (first: number): Promise<Pack> => {
      const folder = fresh();
      await using writer = await PackWriter.open(folder, { ...description, kind: 'images', shape: [1, 1, 1] });
      await writer.add(items(0, 8).map((sample) => ({ ...sample, bytes: new Uint8Array(2).fill(first + sample.place) })));
      await writer.finish();
      return Pack.open(folder);
    };
    using dark = await packOf(0);
    using light = await packOf(100);
    const cache: PackCache = new Map();
    const [first, second] = [dark, light].map((pack) => packBatches(pack, 4, createRng(1), { cache }));
    await first!.ready();
    await second!.ready();
    const bytes = ({ values }: { values: Float32Array }): number[] => Array.from(values, (v) => Math.round((v + 1) * 127.5));
    expect(Math.max(...bytes(first!.next()))).toBeLessThan(100);
    expect(Math.min(...bytes(second!.next()))).toBeGreaterThanOrEqual(100);
  });

  it('of images are floats in [-1, 1]', async () => {
    const folder = fresh();
    {
      await using writer = await PackWriter.open(folder, { ...description, kind: 'images', shape: [1, 2, 1], views: 1 });
      await writer.add([{ place: 3, label: 0, bytes: Uint8Array.of(0, 255) }]);
      await writer.finish();
    }
    using pack = await Pack.open(folder);
    expect([...packBatches(pack, 1, createRng(0)).next().values]).toEqual([-1, 1]);
    expect(existsSync(join(folder, 'shard-00000.safetensors.part'))).toBe(false);
  });
});

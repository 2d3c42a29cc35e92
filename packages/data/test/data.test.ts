import { DataError, createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { type BatchPosition, centreCrop, checkDataset, cropImage, gunzipIfPacked, paddedImages, readIdx, resizeImage, shuffledBatches } from '../src/index.js';

const idx = (shape: number[], type = 8, extra = 0): Uint8Array => {
  const bytes = new Uint8Array(4 + 4 * shape.length + shape.reduce((a, b) => a * b, 1) + extra);
  bytes.set([0, 0, type, shape.length]);
  for (const [i, n] of shape.entries()) new DataView(bytes.buffer).setUint32(4 + 4 * i, n);
  return bytes;
};

describe('IDX files', () => {
  it('are read, packed or not', async () => {
    expect((await readIdx(idx([2, 3]))).shape).toEqual([2, 3]);
    const packed = new Uint8Array(await new Response(new Blob([idx([2, 3]) as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new CompressionStream('gzip'))).arrayBuffer());
    expect((await readIdx(packed)).values.length).toBe(6);
    await expect(readIdx(packed.subarray(0, packed.length - 9), 'a.gz')).rejects.toThrow(/a\.gz is damaged: its gzip stream does not unpack/);
    // what a browser has unpacked already comes as it is
    expect(await gunzipIfPacked(packed, 'a.gz')).toEqual(idx([2, 3]));
    expect(await gunzipIfPacked(idx([2, 3]), 'a.gz')).toEqual(idx([2, 3]));
  });

  it.each([
    ['nothing', new Uint8Array(0), 'no IDX file'],
    ['a page', new TextEncoder().encode('<html>'), 'no IDX file'],
    ['floats', idx([2], 0x0d), 'IDX type 0xd'],
    ['too short', idx([2, 3]).subarray(0, 14), 'cut off or damaged'],
    ['too long', idx([2, 3], 8, 5), 'cut off or damaged'],
    ['half a header', idx([2, 3]).subarray(0, 7), 'cut off in its header'],
  ])('that are %s are refused', async (_, bytes, message) => {
    await expect(readIdx(bytes)).rejects.toThrow(message);
    await expect(readIdx(bytes)).rejects.toBeInstanceOf(DataError);
  });
});

describe('a data set', () => {
  it('has as many labels as images, in range', () => {
    const set = { images: new Uint8Array(8), labels: Int32Array.of(0, 1), height: 2, width: 2, channels: 1, numClasses: 2, classNames: ['a', 'b'] };
    expect(checkDataset(set, 'x')).toBe(set);
    expect(() => checkDataset({ ...set, labels: Int32Array.of(0) }, 'x')).toThrow(/not of the same set/);
    expect(() => checkDataset({ ...set, labels: Int32Array.of(0, 2) }, 'x')).toThrow(/label 2 of image 1 is out of range, expected 0 to 1/);
  });
});

describe('shuffled batches', () => {
  it('show everything once an epoch, and go on from a saved position', () => {
    const batches = shuffledBatches(10, 3, createRng(1));
    const epoch = [batches.next(), batches.next(), batches.next()].flatMap((b) => [...b]);
    expect(new Set(epoch).size).toBe(9);
    batches.next();
    const saved = JSON.parse(JSON.stringify(batches.position())) as ReturnType<typeof batches.position>;
    const resumed = shuffledBatches(10, 3, saved);
    for (let i = 0; i < 8; i++) expect(resumed.next()).toEqual(batches.next());
    expect(() => shuffledBatches(2, 3, createRng(0))).toThrow(/from 1 to the 2 items/);
  });

  it('go on only with the items and the size that they were saved with', () => {
    const batches = shuffledBatches(12, 2, createRng(1));
    for (let i = 0; i < 5; i++) batches.next();
    const position = batches.position();
    expect(() => shuffledBatches(12, 4, position)).toThrow('BatchPosition.batchSize is 2, expected 4');
    expect(() => shuffledBatches(13, 2, position)).toThrow('BatchPosition.count is 12, expected 13');
    // positions of earlier versions say neither
    const earlier: BatchPosition = { epochStart: position.epochStart, taken: 5 };
    expect(shuffledBatches(12, 2, earlier).next()).toEqual(batches.next());
    for (const taken of [5, -1, 0.5]) expect(() => shuffledBatches(12, 4, { ...earlier, taken })).toThrow(`BatchPosition.taken is ${taken}, expected an integer from 0 to 3`);
  });

  it('do not hang on what else is drawn from the stream, and keep their order', () => {
    const rng = createRng(3);
    const batches = shuffledBatches(6, 3, rng);
    const alone = shuffledBatches(6, 3, createRng(3));
    batches.next();
    expect([...alone.next()]).toEqual([2, 1, 5]);
    const resumed = shuffledBatches(6, 3, batches.position());
    for (let i = 0; i < 6; i++) {
      rng.normal(5);
      const next = alone.next();
      expect(batches.next()).toEqual(next);
      expect(resumed.next()).toEqual(next);
    }
  });
});

describe('padded images', () => {
  const set = { images: Uint8Array.from({ length: 12 }, (_, i) => i), labels: Int32Array.of(0, 1), height: 3, width: 2, channels: 1, numClasses: 2, classNames: ['a', 'b'] };
  it('are in the middle of squares that hold them', () => {
    expect(Array.from(paddedImages(set, [1], 3), (v) => Math.round((v + 1) * 127.5))).toEqual([6, 7, 0, 8, 9, 0, 10, 11, 0]);
    for (const size of [2, 3.5, Number.NaN]) expect(() => paddedImages(set, [0], size)).toThrow(`paddedImages: size is ${size}, expected an integer of 3 or more`);
  });

  it('are of the set', () => {
    for (const index of [2, -1, 0.5]) expect(() => paddedImages(set, [0, index], 3)).toThrow(`paddedImages: index is ${index}, expected an integer from 0 to 1`);
  });
});

describe('images', () => {
  const flat = { width: 9, height: 6, channels: 2, pixels: new Uint8Array(108).fill(77) };
  it('stay what they are where they are flat, at any size', () => {
    for (const filter of ['box', 'bicubic'] as const) expect(new Set(resizeImage(flat, 5, 11, filter).pixels)).toEqual(new Set([77]));
    expect(centreCrop(flat, 4)).toMatchObject({ width: 4, height: 4 });
    expect(() => cropImage(flat, 6, 0, 4, 4)).toThrow(/inside the 9 × 6 image/);
    expect(() => resizeImage(flat, 0, 4, 'box')).toThrow(/width is 0/);
  });
});

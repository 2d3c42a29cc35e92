import { ArgumentError, type Rng, restoreRng } from '@tinyfusion/core';
import { decodeFloat32 } from '@tinyfusion/weights';
import { type BatchPosition, shuffledBatches } from '../batches.js';
import type { Pack, PackPick } from './pack.js';

/** Samples of a batch, in floats: latents as they are, images in [-1, 1]. */
export interface PackBatch {
  /** `[n, H, W, C]`. */
  values: Float32Array<ArrayBuffer>;
  /** `[n]`. */
  labels: Int32Array<ArrayBuffer>;
}

/** Endless shuffled batches out of a pack, which are read before they are asked for. */
export interface PackBatches {
  /** Settles when the next batch is in memory. @throws DataError where a sample of it is damaged */
  ready(): Promise<void>;
  /** The next batch; read at once where it is not in memory. */
  next(): PackBatch;
  /** Where it stands. */
  position(): BatchPosition;
}

/** Options of {@link packBatches}. */
export interface PackBatchesOptions {
  /** The rows of each batch that are wanted here: ranks that share batches read their own alone. Default: all. */
  rows?: { start: number; size: number };
  /** Batches that are being read ahead once `ready` was called. Default 2. */
  ahead?: number;
  /** What was read, shared by those that go back to a place of one another's. Default: its own. */
  cache?: PackCache;
}

/** Batches in memory by their pack and place, the latest last. */
export type PackCache = Map<string, PackRead>;

/** A batch that is being read. */
interface PackRead {
  picks: PackPick[];
  read: Promise<Uint8Array<ArrayBuffer>>;
  /** When it is there. */
  bytes?: Uint8Array<ArrayBuffer>;
}

/**
 * Shuffles a pack anew every epoch and draws a view of each sample. All ranks that start from the same stream see the same
 * batches, so that rows which do not overlap make samples which do not.
 * @param from an `Rng`, which is copied, or a saved position: see `shuffledBatches`
 * @throws ArgumentError as `shuffledBatches` does, or where rows are not of the batch
 */
export function packBatches(pack: Pack, batchSize: number, from: Rng | BatchPosition, { rows = { start: 0, size: batchSize }, ahead = 2, cache = new Map() }: PackBatchesOptions = {}): PackBatches {
  if (!Number.isInteger(ahead) || ahead < 0) throw new ArgumentError('PackBatchesOptions.ahead', ahead, 'a number of batches');
  if (!Number.isInteger(rows.start) || !Number.isInteger(rows.size) || rows.start < 0 || rows.size < 0 || rows.start + rows.size > batchSize) throw new ArgumentError('PackBatchesOptions.rows', [rows.start, rows.start + rows.size], `inside of the batch of ${batchSize}`);
  const given = shuffledBatches(pack.count, batchSize, from);
  // indices are drawn ahead of what is given out, by a second one from the same place
  const drawn = shuffledBatches(pack.count, batchSize, given.position());
  const viewsOf = viewsByEpoch(pack);
  const waiting: { key: string; picks: PackPick[] }[] = [];
  const draw = (): (typeof waiting)[number] => {
    const indices = drawn.next();
    const { epochStart, taken } = drawn.position();
    const views = viewsOf(epochStart, (taken - 1) * batchSize + rows.start, rows.size);
    return { key: JSON.stringify([pack.fingerprint, epochStart, taken, batchSize, rows]), picks: Array.from({ length: rows.size }, (_, i) => ({ index: indices[rows.start + i]!, view: views[i]! })) };
  };
  const begin = ({ key, picks }: (typeof waiting)[number]): PackRead => {
    const earlier = cache.get(key);
    if (earlier !== undefined) return earlier;
    const begun: PackRead = { picks, read: pack.read(picks) };
    begun.read.then((bytes) => (begun.bytes = bytes)).catch(() => {}); // told by ready(), or by reading again
    cache.set(key, begun);
    // the one that was given out last may be asked for again
    for (const old of cache.keys()) if (cache.size > ahead + 3) cache.delete(old);
    return begun;
  };
  return {
    async ready() {
      while (waiting.length < 1 + ahead) waiting.push(draw());
      const [first] = waiting.map(begin);
      await first!.read;
    },
    next() {
      const { key, picks } = waiting.shift() ?? draw();
      given.next();
      const bytes = cache.get(key)?.bytes ?? pack.readSync(picks);
      return { values: pack.info.kind === 'images' ? pixels(bytes) : halves(bytes), labels: Int32Array.from(picks, ({ index }) => pack.labels[index]!) };
    },
    position: () => given.position(),
  };
}

/** The view of each place of an epoch's order: a stream of the epoch's own. */
function viewsByEpoch({ count, info }: Pack): (epoch: BatchPosition['epochStart'], start: number, size: number) => Int32Array {
  let [known, views] = ['', new Int32Array(0)];
  return (epoch, start, size) => {
    if (info.views === 1) return new Int32Array(size);
    const key = JSON.stringify(epoch);
    if (key !== known) {
      // a split of the stream alone would be the same in every epoch
      const stream = restoreRng(epoch);
      [known, views] = [key, stream.split(`views ${stream.integers(0, 2 ** 31, 1)[0]!}`).integers(0, info.views, count)];
    }
    return views.subarray(start, start + size);
  };
}

/** Bytes in [-1, 1]. */
function pixels(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(bytes.length);
  for (let i = 0; i < out.length; i++) out[i] = bytes[i]! / 127.5 - 1;
  return out;
}

let table: Float32Array | undefined;

/** Half floats by a table of all there are. */
function halves(bytes: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  table ??= decodeFloat32(new Uint8Array(Uint16Array.from({ length: 65_536 }, (_, i) => i).buffer), 'F16');
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const out = new Float32Array(words.length);
  for (let i = 0; i < out.length; i++) out[i] = table[words[i]!]!;
  return out;
}

import { crc32 } from 'node:zlib';

/** A sample on its way into a pack. */
export interface PackItem {
  /** All views, one after another. */
  bytes: Uint8Array;
  label: number;
  /** Its place in the source, counted from 0; places grow. */
  place: number;
}

/** Bytes before an item's own in the file of a shard that is not full yet: CRC, label, place. */
const HEAD = 12;

/** CRC-32 of a view with its label: a pixel or a label that has changed shows. */
export function viewCrc(view: Uint8Array, label: number): number {
  return crc32(view, crc32(new Uint8Array(Int32Array.of(label).buffer)));
}

/** Items as bytes to append to a file. */
export function recordsOf(items: readonly PackItem[], size: number): Uint8Array {
  const out = new Uint8Array(items.length * (HEAD + size));
  const view = new DataView(out.buffer);
  for (const [i, { bytes, label, place }] of items.entries()) {
    const at = i * (HEAD + size);
    view.setInt32(at + 4, label, true);
    view.setUint32(at + 8, place, true);
    out.set(bytes, at + HEAD);
    view.setUint32(at, crc32(out.subarray(at + 4, at + HEAD + size)), true);
  }
  return out;
}

/** The items of a file up to the first that is cut off or damaged; their bytes are parts of the file's. */
export function itemsOf(file: Uint8Array, size: number): PackItem[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const items: PackItem[] = [];
  for (let at = 0; at + HEAD + size <= file.length; at += HEAD + size) {
    if (view.getUint32(at, true) !== crc32(file.subarray(at + 4, at + HEAD + size))) break;
    items.push({ label: view.getInt32(at + 4, true), place: view.getUint32(at + 8, true), bytes: file.subarray(at + HEAD, at + HEAD + size) });
  }
  return items;
}

/** Bytes of so many items in that file. */
export const recordBytes = (count: number, size: number): number => count * (HEAD + size);

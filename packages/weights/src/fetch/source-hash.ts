import { type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex } from '@noble/hashes/utils.js';
import type { Source } from '../source.js';
import { nodeSha256 } from '../state-dict.js';

/** Bytes that are hashed at once. */
const PART = 4 * 2 ** 20;

/** SHA-256 of all bytes, in hexadecimal. @throws CancelledError between two parts */
export async function sourceHash(source: Source, task: string, { signal, onProgress }: LongTaskOptions): Promise<string> {
  const native = nodeSha256();
  const own = native === undefined ? sha256.create() : undefined;
  for (let at = 0; ; ) {
    throwIfCancelled(signal, task);
    const bytes = await source.read(at, Math.min(PART, source.size - at));
    native?.update(bytes);
    own?.update(bytes);
    at += bytes.length;
    onProgress?.({ task, step: at, total: source.size, unit: 'byte' });
    if (at >= source.size) return native === undefined ? bytesToHex(own!.digest()) : native.digest('hex');
  }
}

import { parseJson } from './strict-json.js';
import type { ZipEntry } from './zip.js';

/** More than any record, and little to hold. */
const LARGEST = 16 * 2 ** 20;

/** The text beside a checkpoint's tensors as JSON, an object of strings: what archives keep it as. Of a key that comes twice the last text counts. */
export function metadataBytes(metadata: Iterable<readonly [string, string]>): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`{${Array.from(new Map(metadata), ([key, text]) => `${JSON.stringify(key)}:${JSON.stringify(text)}`).join(',')}}`);
}

/** What {@link metadataBytes} wrote into an archive's file, after its first `skip` bytes; nothing where it is something else. @throws CheckpointError where the file is damaged */
export async function readMetadata(entry: ZipEntry | undefined, skip = 0): Promise<ReadonlyMap<string, string> | undefined> {
  if (entry === undefined || entry.size > LARGEST) return undefined;
  const bytes = await entry.read();
  let value: unknown;
  try {
    value = parseJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(skip)));
  } catch {
    return undefined;
  }
  return value instanceof Map && [...value.values()].every((text) => typeof text === 'string') ? (value as Map<string, string>) : undefined;
}

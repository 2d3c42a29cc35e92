import { DataError } from '@tinyfusion/core';

// literal URLs, so that bundlers find and copy the files
const urls = {
  'train.bin.gz': () => new URL('../assets/train.bin.gz', import.meta.url),
  'test.bin.gz': () => new URL('../assets/test.bin.gz', import.meta.url),
  'teacher.safetensors': () => new URL('../assets/teacher.safetensors', import.meta.url),
  'sit.safetensors': () => new URL('../assets/sit.safetensors', import.meta.url),
  'mar.safetensors': () => new URL('../assets/mar.safetensors', import.meta.url),
  'autoencoder.safetensors': () => new URL('../assets/autoencoder.safetensors', import.meta.url),
  'features.safetensors': () => new URL('../assets/features.safetensors', import.meta.url),
} as const;

/** Files that come with this package. */
export type AssetName = keyof typeof urls;

/**
 * The bytes of a file of this package, from the disk in Node and over the network in a browser.
 * @throws DataError where it is missing
 */
export async function loadAsset(name: AssetName): Promise<Uint8Array<ArrayBuffer>> {
  const url = urls[name]();
  try {
    if (url.protocol === 'file:') {
      // no import: bundlers for browsers would have to resolve it
      const { readFile } = process.getBuiltinModule('node:fs').promises;
      return new Uint8Array(await readFile(url));
    }
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    return new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    throw new DataError(`${name} of @tinyfusion/fashion-mnist cannot be read at ${url.href}; install the package again, or let the bundler copy its assets`, { cause });
  }
}

import { knownCheckpoints } from '@tinyfusion/weights';
import { nodeCache } from '@tinyfusion/weights/node';
import type { JobContext } from './context.js';
import { openFile } from './weights-file.js';

/** Fetches published files into the cache, or lists those that are known. */
export async function fetchJob(names: readonly string[], context: Pick<JobContext, 'signal' | 'onProgress'>): Promise<void> {
  const cache = nodeCache();
  if (names.length === 0) {
    for (const [name, { what, licence, file }] of Object.entries(knownCheckpoints)) {
      const here = await cache.open(file);
      await here?.[Symbol.asyncDispose]();
      console.log(`${name.padEnd(24)}${here === undefined ? ' ' : '✓'} ${what} (${licence})`);
    }
    console.log(`files are kept in ${cache.place('')}`);
    return;
  }
  for (const name of names) {
    await using file = await openFile(name, context);
    console.log(`${name}: ${file.name}, ${(file.size / 1e6).toFixed(1)} MB`);
  }
}

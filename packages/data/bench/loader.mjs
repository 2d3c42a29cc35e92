// How many samples a second a pack gives: of the embedded latents' size, and of ImageNet's at 256 pixels.
//   node packages/data/bench/loader.mjs
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@tinyfusion/core';
import { Pack, PackWriter, packBatches } from '@tinyfusion/data/node';

const folder = mkdtempSync(join(tmpdir(), 'loader-'));
for (const [name, shape, count] of [['8×8×4', [8, 8, 4], 20_000], ['32×32×4', [32, 32, 4], 10_000]]) {
  const size = 4 * shape[0] * shape[1] * shape[2];
  const out = join(folder, name);
  {
    await using writer = await PackWriter.open(out, { kind: 'latents', shape, views: 2, classNames: ['all'], perShard: 4096, source: { from: 'a bench' } });
    const bytes = Uint8Array.from(createRng(1).integers(0, 100, size));
    for (let at = 0; at < count; at += 500) await writer.add(Array.from({ length: 500 }, (_, i) => ({ place: at + i, label: 0, bytes })));
    await writer.finish();
  }
  using pack = await Pack.open(out);
  const batches = packBatches(pack, 64, createRng(0));
  const start = performance.now();
  const cpu = process.cpuUsage();
  let samples = 0;
  while (performance.now() - start < 3000) {
    await batches.ready();
    batches.next();
    samples += 64;
  }
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  console.log(JSON.stringify({ latents: name, samplesPerSecond: Math.round(samples / seconds), megabytesPerSecond: Math.round((samples * size) / 2 / seconds / 1e6), cpuMicrosecondsPerSample: +((user + system) / samples).toFixed(1) }));
}
rmSync(folder, { recursive: true });

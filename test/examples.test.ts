// Every example runs as it stands, on the sources, with few steps.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRng } from '@tinyfusion/core';
import { parseSafetensors } from '@tinyfusion/weights';
import { encode } from 'fast-png';
import { describe, expect, it } from 'vitest';
import { emptyFolder, root, runProgram } from './run-program.js';

const source = (name: string): string => readFileSync(join(root, 'examples', name), 'utf8');
const run = (name: string, args: readonly string[] = [], cwd = emptyFolder()): Promise<string> => runProgram(`examples/${name}`, source(name), args, cwd);

/** Noise as PNGs of 20 × 18, `count` of them. */
function pictures(folder: string, count: number, seed: number): void {
  mkdirSync(folder, { recursive: true });
  const rng = createRng(seed);
  for (let i = 0; i < count; i++) writeFileSync(join(folder, `${i}.png`), encode({ width: 20, height: 18, channels: 3, data: Uint8Array.from(rng.integers(0, 256, 20 * 18 * 3)) }));
}

describe('examples', () => {
  it('are all listed and tested', () => {
    const [readme, tests] = [source('README.md'), readFileSync(join(root, 'test/examples.test.ts'), 'utf8')];
    for (const name of readdirSync(join(root, 'examples')).filter((file) => file.endsWith('.ts'))) {
      expect(readme, name).toContain(`(${name})`);
      expect(tests, name).toContain(`run('${name}'`);
    }
  });

  it('prunes in fifteen lines', async () => {
    expect(await run('prune.ts', ['2'])).toMatch(/kept layers \d+( \d+){5} → shallow\.safetensors/);
  }, 120_000);

  it('prunes a model of one\'s own', async () => {
    expect(await run('own-model.ts', ['3'])).toMatch(/kept \d \d \d → 3 blocks/);
  }, 120_000);

  it('samples with a preview', async () => {
    expect(await run('sample-with-preview.ts', ['0'])).toMatch(/10\/10: the model expects/);
  }, 120_000);

  it('trains in a loop of one\'s own, and goes on', async () => {
    const folder = emptyFolder();
    expect(await run('own-training-loop.ts', ['30'], folder)).toMatch(/30 steps → run\.safetensors$/);
    const output = await run('own-training-loop.ts', ['60'], folder);
    expect(output).toMatch(/^goes on from step 30/m);
    const loss = Number(/step 59, loss ([\d.]+)/.exec(output)?.[1]);
    expect(loss).toBeLessThan(0.9); // noise predicted as zeros has a loss of 1
  }, 120_000);

  it('learns from a folder of images', async () => {
    const folder = emptyFolder();
    pictures(join(folder, 'data', 'cats'), 6, 0);
    pictures(join(folder, 'data', 'dogs'), 6, 1);
    expect(await run('own-dataset.ts', ['data', '2'], folder)).toMatch(/12 images of cats, dogs: kept layers \d \d \d \d of 8 → own\.safetensors/);
    expect((await parseSafetensors(new Uint8Array(readFileSync(join(folder, 'own.safetensors'))))).tensors.has('blocks.3.attn.qkv.weight')).toBe(true);
  }, 120_000);

  it('adapts a pruned model', async () => {
    const folder = emptyFolder();
    expect(await run('lora-on-pruned.ts', ['3'], folder)).toMatch(/merged → shoes\.safetensors/);
    const merged = await parseSafetensors(new Uint8Array(readFileSync(join(folder, 'shoes.safetensors'))));
    expect([...merged.tensors.keys()].filter((name) => /lora/i.test(name))).toEqual([]);
    expect(JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8'))).toMatchObject({ peft_type: 'LORA', r: 8 });
  }, 120_000);

  it('samples in a worker, to the end or until it is stopped', async () => {
    const folder = emptyFolder();
    expect(await run('sample-in-worker.ts', [], folder)).toMatch(/step 10 of 10\n→ from-worker\.png$/);
    expect(readFileSync(join(folder, 'from-worker.png')).subarray(1, 4).toString()).toBe('PNG');
    expect(await run('sample-in-worker.ts', ['2'])).toMatch(/step 2 of 10[\s\S]*stopped$/);
  }, 120_000);

  it('evaluates a folder', async () => {
    const folder = emptyFolder();
    pictures(join(folder, 'real'), 80, 0);
    pictures(join(folder, 'samples'), 70, 1);
    const output = await run('evaluate-folder.ts', ['real', 'samples'], folder);
    expect(output).toMatch(/FID \d+\.\d\d of 70 samples against 80 images$/);
    expect(output).toContain('compare these numbers with each other, not with published ones');
  }, 120_000);
});

// Every example runs as it stands, on the sources, with few steps.
import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createRng } from '@tinyfusion/core';
import { parseSafetensors } from '@tinyfusion/weights';
import { transform } from 'esbuild';
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

  it('prunes in one process as under MPI', async () => {
    expect(await run('prune-under-mpi.ts', ['2'])).toMatch(/^1 process: kept layers \d+( \d+){5} → shallow\.safetensors$/m);
  }, 120_000);

  // MPI's library is loaded by a native module, which is found from the examples' own folder alone
  it.skipIf(spawnSync('mpirun', ['--version']).status !== 0)('prunes under MPI (skipped where there is none)', async () => {
    const cache = join(root, 'examples/node_modules/.cache');
    mkdirSync(cache, { recursive: true });
    const program = join(cache, 'prune-under-mpi.mjs');
    writeFileSync(program, (await transform(source('prune-under-mpi.ts'), { loader: 'ts', target: 'node20' })).code);
    const folder = emptyFolder();
    const { stdout } = await promisify(execFile)('mpirun', ['--allow-run-as-root', '--oversubscribe', '--bind-to', 'none', '-np', '2', process.execPath, program, '2'], { cwd: folder, env: { ...process.env, NODE_OPTIONS: '' } });
    expect(stdout).toMatch(/^2 processes: kept layers \d+( \d+){5} → shallow\.safetensors$/m);
    expect((await parseSafetensors(new Uint8Array(readFileSync(join(folder, 'shallow.safetensors'))))).tensors.has('blocks.5.attn.qkv.weight')).toBe(true);
  }, 180_000);

  it('has a kernel of its own that agrees with its definition', async () => {
    const worst = [...(await run('own-kernel.ts')).matchAll(/^(value|gradient) differs by at most (\S+)$/gm)].map(([, , by]) => Number(by));
    expect(worst).toHaveLength(2);
    for (const by of worst) expect(by).toBeLessThan(1e-5);
  }, 60_000);

  it('exports a pruned model, from which ONNX Runtime draws', async () => {
    expect(await run('export-onnx.ts')).toMatch(/^\d\.\d MB of ONNX drew \[2,8,8,4\] → student\.onnx$/m);
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

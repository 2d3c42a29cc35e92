import { createRng } from '@tinyfusion/core';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { hasMpi, jsonLines, mpich, mpirun, runProgram } from './run-program.js';

interface Trained {
  rank: number;
  losses: number[];
  hash: string;
}

const steps = 100;
let alone: number[];

beforeAll(async () => {
  alone = jsonLines<Trained>(await runProgram('training', [`${steps}`]))[0]!.losses;
});

it('one rank alone learns', () => {
  expect(alone).toHaveLength(steps);
  expect(alone.at(-1)).toBeLessThan(0.9 * alone[0]!);
});

/** The losses of one rank with the same global batch, and the same model everywhere. */
function expectAsAlone(ranks: readonly Trained[], size: number): void {
  expect(ranks.map(({ rank }) => rank).toSorted()).toEqual(Array.from({ length: size }, (_, rank) => rank));
  const { losses } = ranks.find(({ rank }) => rank === 0)!;
  expect(losses).toHaveLength(steps);
  const worst = losses.reduce((most, loss, i) => Math.max(most, Math.abs(loss - alone[i]!) / alone[i]!), 0);
  expect(worst).toBeLessThan(1e-5);
  expect(new Set(ranks.map(({ hash }) => hash)).size).toBe(1);
}

describe('a tiny DiT trained by several ranks has the loss curve of one', () => {
  it.skipIf(!hasMpi).each([2, 3])('%i ranks under Open MPI (skipped where there is none)', async (size) => {
    const ran = await runProgram('training', [`${steps}`], { under: mpirun(size) });
    expect(ran.code, ran.stderr).toBe(0);
    expectAsAlone(jsonLines<Trained>(ran), size);
  });

  it.each([2, 3])('%i threads', async (size) => {
    const ran = await runProgram('training-threads', [`${size}`, `${steps}`]);
    expect(ran.code, ran.stderr).toBe(0);
    expectAsAlone(jsonLines<Trained>(ran), size);
  });

  it.skipIf(mpich(2) === undefined)('2 ranks under MPICH (skipped where TINYFUSION_TEST_MPICH is not set)', async () => {
    const { under, env, library } = mpich(2)!;
    const ran = await runProgram('training', [`${steps}`], { under, env: { ...env, TINYFUSION_MPI_LIBRARY: library } });
    expect(ran.code, ran.stderr).toBe(0);
    expectAsAlone(jsonLines<Trained>(ran), 2);
  });
});

it('Open MPI is here where TINYFUSION_REQUIRE_MPI=1 asks for it', () => {
  expect(hasMpi || process.env['TINYFUSION_REQUIRE_MPI'] !== '1', 'apt-get install openmpi-bin').toBe(true);
});

describe.skipIf(!hasMpi)('the command line under mpirun (skipped where there is none)', () => {
  const bin = fileURLToPath(new URL('../../../cli/bin/tinyfusion.mjs', import.meta.url));
  const folder = mkdtempSync(join(tmpdir(), 'mpi-'));
  const tinyfusion = (args: readonly string[], ranks: number): { status: number | null; stdout: string; stderr: string } => {
    const [command, ...rest] = [...(ranks === 1 ? [] : mpirun(ranks)), process.execPath, bin, ...args];
    return spawnSync(command!, rest, { cwd: folder, encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '' } });
  };
  const lossesIn = (run: string): number[] => readFileSync(join(folder, run, 'events.jsonl'), 'utf8').trim().split('\n').map((line) => (JSON.parse(line) as { values: { loss: number } }).values.loss);

  it('trains, learns masks and recovers with two ranks as with one; one of them writes', { timeout: 300_000 }, () => {
    for (const ranks of [1, 2]) {
      const learned = tinyfusion(['learn-masks', '--steps', '6', '--batch', '8', '--images', '100', '--backend', 'wasm', '--run', `masks-${ranks}`, '--out', `masks-${ranks}.json`], ranks);
      expect(learned.status, learned.stderr).toBe(0);
      expect(learned.stdout.match(/wrote /g)).toHaveLength(1);
      expect(learned.stderr.match(/backend:/g)).toHaveLength(1);
      const pruned = tinyfusion(['prune', '--masks', `masks-${ranks}.json`, '--out', `shallow-${ranks}.safetensors`, '--backend', 'wasm'], 1);
      expect(pruned.status, pruned.stderr).toBe(0);
      const branches = tinyfusion(['learn-branches', '--faster', '1.1', '--steps', '3', '--batch', '8', '--images', '100', '--backend', 'wasm', '--out', `branches-${ranks}.json`], ranks);
      expect(branches.status, branches.stderr).toBe(0);
      expect(branches.stdout.match(/keep layers /g)).toHaveLength(1);
      const recovered = tinyfusion(['distill', '--student', 'shallow-1.safetensors', '--steps', '6', '--batch', '8', '--images', '100', '--beta', '0', '--backend', 'wasm', '--run', `recovery-${ranks}`, '--save-every', '3', '--out', `recovered-${ranks}.safetensors`], ranks);
      expect(recovered.status, recovered.stderr).toBe(0);
    }
    for (const job of ['masks', 'recovery']) {
      const [one, two] = [lossesIn(`${job}-1`), lossesIn(`${job}-2`)];
      expect(two).toHaveLength(6);
      for (const [i, loss] of two.entries()) expect(Math.abs(loss - one[i]!) / one[i]!).toBeLessThan(1e-5);
    }
    expect(readdirSync(join(folder, 'recovery-2')).filter((name) => name.startsWith('step-'))).toHaveLength(2);
    const trained = tinyfusion(['train', '--family', 'SiT', '--fast', '--out', 'teacher', '--backend', 'wasm'], 2);
    expect(trained.status, trained.stderr).toBe(0);
    expect(lossesIn('teacher')).toHaveLength(4);
  });

  it('goes on after a rank was killed, to the losses of a run that was not', { timeout: 600_000 }, async () => {
    const job = (run: string): string[] => ['train', '--family', 'DiT', '--data', 'idx', '--config', 'small.json', '--steps', '40', '--batch', '4', '--save-every', '4', '--backend', 'wasm', '--out', run];
    writeFileSync(join(folder, 'small.json'), JSON.stringify({ hiddenSize: 16, depth: 2, numHeads: 2 }));
    mkdirSync(join(folder, 'idx'));
    writeFileSync(join(folder, 'idx/train-images-idx3-ubyte'), Buffer.from([0, 0, 8, 3, 0, 0, 0, 50, 0, 0, 0, 28, 0, 0, 0, 28, ...createRng(1).integers(0, 256, 50 * 784)]));
    writeFileSync(join(folder, 'idx/train-labels-idx1-ubyte'), Buffer.from([0, 0, 8, 1, 0, 0, 0, 50, ...createRng(2).integers(0, 10, 50)]));

    const [command, ...rest] = [...mpirun(2), process.execPath, bin, ...job('killed')];
    const child = spawn(command!, rest, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, NODE_OPTIONS: '' } });
    let stderr = '';
    child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    const saves = (): string[] => (existsSync(join(folder, 'killed')) ? readdirSync(join(folder, 'killed')).filter((name) => name.startsWith('step-')) : []);
    while (saves().length === 0 && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 20));
    // the ranks are mpirun's children
    const ranks = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ').map(Number);
    expect(ranks, stderr).toHaveLength(2);
    process.kill(ranks[1]!, 'SIGKILL');
    expect(await ended).not.toBe(0);
    expect(stderr).toMatch(/rank 1/);
    expect(saves().at(-1)).not.toMatch(/^step-000040/);

    for (const run of ['killed', 'whole']) {
      const ran = tinyfusion(job(run), 2);
      expect(ran.status, ran.stderr).toBe(0);
      expect(lossesIn(run)).toHaveLength(40);
    }
    const [killed, whole] = [lossesIn('killed'), lossesIn('whole')];
    for (const [i, loss] of killed.entries()) expect(Math.abs(loss - whole[i]!) / whole[i]!).toBeLessThan(1e-5);
  });

  it('draws the images and measures the numbers of one rank', { timeout: 300_000 }, () => {
    const numbers: string[] = [];
    for (const ranks of [1, 2]) {
      const drawn = tinyfusion(['sample', '--count', '5', '--batch', '2', '--steps', '2', '--backend', 'wasm', '--out', `samples-${ranks}.npz`], ranks);
      expect(drawn.status, drawn.stderr).toBe(0);
      expect(drawn.stdout.match(/wrote /g)).toHaveLength(1);
      const measured = tinyfusion(['evaluate', '--samples', '192', '--steps', '1', '--cfg', '1', '--backend', 'wasm', '--json', `measured-${ranks}.json`], ranks);
      expect(measured.status, measured.stderr).toBe(0);
      const { fid, inceptionScore, precision, recall, agreement } = JSON.parse(readFileSync(join(folder, `measured-${ranks}.json`), 'utf8')) as Record<string, number>;
      numbers.push(JSON.stringify({ fid, inceptionScore, precision, recall, agreement }));
    }
    expect(readFileSync(join(folder, 'samples-2.npz'))).toEqual(readFileSync(join(folder, 'samples-1.npz')));
    expect(numbers[1]).toBe(numbers[0]);
  });

  it('an error ends the job on all ranks, and says which rank had it', () => {
    const ran = tinyfusion(['distill', '--student', 'nowhere.safetensors', '--backend', 'cpu'], 2);
    expect(ran.status).not.toBe(0);
    expect(ran.stderr).toMatch(/error on rank [01] of 2: .*nowhere\.safetensors/);
  });

  it('a job that is not shared is refused', () => {
    const ran = tinyfusion(['prune', '--backend', 'cpu'], 2);
    expect(ran.status).not.toBe(0);
    expect(ran.stderr).toContain('start it without mpirun');
  });
});

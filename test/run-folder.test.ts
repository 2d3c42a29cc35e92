import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng } from '@tinyfusion/core';
import { RunFolder } from '@tinyfusion/recipes/node';
import { parseSafetensors, writableTensor, writeSafetensors } from '@tinyfusion/weights';
import { describe, expect, it } from 'vitest';

const identity = { task: 'train', steps: 100, lr: 0.001, data: 'abc' };
const folder = (): string => join(mkdtempSync(join(tmpdir(), 'run-')), 'run');
const open = (path: string, changes: object = {}, options: object = {}) => RunFolder.open(path, { ...identity, ...changes }, { command: 'tinyfusion train', ...options });
const saved = (step: number) => parseSafetensors(writeSafetensors([['x', writableTensor(createRng(step).normal(50), [50])]], [['step', `${step}`]]));
const saves = (path: string): string[] => readdirSync(path).filter((name) => name.startsWith('step-'));

/** Saves some steps, as a recipe would. */
async function take(run: RunFolder, steps: readonly number[], mse: (step: number) => number = () => 1): Promise<void> {
  const { checkpoint, onProgress } = run.checkpointing(async (result: number) => new Uint8Array([result]), {}, { metric: 'mse' });
  for (const step of steps) {
    onProgress!({ task: 'train', step, total: 100, unit: 'step', values: { loss: step, mse: mse(step) } });
    await checkpoint!.save(step, step, await saved(step));
  }
}

describe('a run folder', () => {
  it('goes on from the newest save, and drops the events after it', async () => {
    const path = folder();
    {
      await using run = await open(path);
      expect(run.step).toBe(0);
      expect(run.checkpointing(async () => new Uint8Array(), {}).resume).toBe(undefined);
      await take(run, [10, 20]);
      run.checkpointing(async () => new Uint8Array(), {}).onProgress!({ task: 'train', step: 21, total: 100, unit: 'step', values: { loss: NaN } });
    }
    writeFileSync(join(path, 'events.jsonl'), `${readFileSync(join(path, 'events.jsonl'), 'utf8')}{"step":22,"ta`);
    await using run = await open(path);
    expect(run.step).toBe(20);
    expect(run.checkpointing(async () => new Uint8Array(), {}).resume!.metadata.get('step')).toBe('20');
    expect(readFileSync(join(path, 'events.jsonl'), 'utf8').trim().split('\n').map((line) => (JSON.parse(line) as { step: number }).step)).toEqual([10, 20]);
  });

  it('drops the first line of its log where it was killed while that was written', async () => {
    const path = folder();
    await (await open(path)).close();
    writeFileSync(join(path, 'events.jsonl'), '{"step":1,"ta');
    await open(path).then(async (run) => {
      await take(run, [1]);
      await run.close();
    });
    expect(readFileSync(join(path, 'events.jsonl'), 'utf8')).toMatch(/^\{"step":1,"task":"train".*\}\n$/);
  });

  it('keeps the last saves, those of a multiple, and the best', async () => {
    const path = folder();
    await using run = await open(path, {}, { last: 2, keepEvery: 50 });
    await take(run, [10, 20, 30, 40, 50, 60, 70, 80], (step) => Math.abs(step - 30));
    expect(saves(path).map((name) => Number(name.slice(5, 11)))).toEqual([50, 70, 80]);
    expect(JSON.parse(readFileSync(join(path, 'best.json'), 'utf8'))).toEqual({ step: 30, value: 0 });
    expect([...readFileSync(join(path, 'best.safetensors'))]).toEqual([30]);
    expect([...readFileSync(join(path, 'model.safetensors'))]).toEqual([80]);
  });

  it('knows the best of steps whose save a crash has broken off', async () => {
    const path = folder();
    const run = await open(path);
    const mse = (step: number): number => ({ 10: 2, 20: 1, 30: 3 })[step]!;
    await take(run, [10], mse);
    // the file of the best cannot be written over: the save ends there, as by a kill
    const best = join(path, 'best.safetensors');
    rmSync(best);
    mkdirSync(join(best, 'in-the-way'), { recursive: true });
    await expect(take(run, [20], mse)).rejects.toThrow(/best/);
    await run.close();
    rmSync(best, { recursive: true });
    await using again = await open(path);
    expect(again.step).toBe(10);
    await take(again, [20, 30], mse);
    expect(JSON.parse(readFileSync(join(path, 'best.json'), 'utf8'))).toEqual({ step: 20, value: 1 });
    expect([...readFileSync(best)]).toEqual([20]);
  });

  it('keeps a best that it has yet to reach again', async () => {
    const path = folder();
    await open(path).then(async (run) => {
      await take(run, [10, 20, 30], (step) => 40 - step);
      await run.close();
    });
    for (const name of saves(path).filter((n) => /^step-0000[23]0/.test(n))) rmSync(join(path, name));
    await using again = await open(path);
    await take(again, [20], (step) => 40 - step);
    expect([...readFileSync(join(path, 'best.safetensors'))]).toEqual([30]);
    await take(again, [30], (step) => 40 - step);
    expect(JSON.parse(readFileSync(join(path, 'best.json'), 'utf8'))).toEqual({ step: 30, value: 10 });
  });

  it.each([
    ['cut off', (file: Buffer) => file.subarray(0, file.length - 7)],
    ['changed in one bit', (file: Buffer) => (file.set([file[file.length - 3]! ^ 4], file.length - 3), file)],
    ['empty', () => Buffer.alloc(0)],
  ])('sets a save aside that is %s, and uses the one before it', async (_, damage) => {
    const path = folder();
    await open(path).then(async (run) => {
      await take(run, [10, 20]);
      await run.close();
    });
    const name = saves(path).find((n) => n.startsWith('step-000020'))!;
    writeFileSync(join(path, name), damage(readFileSync(join(path, name))));
    await using run = await open(path);
    expect(run.step).toBe(10);
    expect(existsSync(join(path, `${name}.damaged`))).toBe(true);
  });

  it('takes another run where no step of the first was saved', async () => {
    const path = folder();
    await (await open(path)).close();
    writeFileSync(join(path, 'best.json'), '{"step": 1, "value": 0}');
    await using run = await open(path, { lr: 0.002 });
    await take(run, [10], () => 5);
    expect(JSON.parse(readFileSync(join(path, 'run.json'), 'utf8'))).toMatchObject({ identity: { lr: 0.002 } });
    expect(JSON.parse(readFileSync(join(path, 'best.json'), 'utf8'))).toEqual({ step: 10, value: 5 });
  });

  it.skipIf(process.platform !== 'linux')('refuses what is no place for it', async () => {
    const path = folder();
    writeFileSync(path, '');
    await expect(open(path)).rejects.toThrow(/run cannot be made: a part of the path is a file/);
    await expect(open('/proc/x')).rejects.toThrow(/the folder \/proc\/x cannot be made/);
  });

  it('refuses another run, and data that have changed, by what differs', async () => {
    const path = folder();
    await open(path).then(async (run) => {
      await take(run, [10]);
      await run.close();
    });
    await expect(open(path, { lr: 0.002 })).rejects.toThrow(/another run: lr was 0\.001 and is 0\.002/);
    await expect(open(path, { data: 'abd' })).rejects.toThrow(/data was "abc" and is "abd"/);
    await expect(open(path, { batch: 3 })).rejects.toThrow(/batch was null and is 3/);
    // a refusal leaves the folder unlocked
    await (await open(path)).close();
  });

  it('is written by one process at a time; a lock of one that is gone is taken over', async () => {
    const path = folder();
    const run = await open(path);
    await expect(open(path)).rejects.toThrow(new RegExp(`written by process ${process.pid} of this machine`));
    await run.close();
    const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)']);
    const lock = join(path, 'lock');
    writeFileSync(lock, JSON.stringify({ pid: child.pid, host: hostname() }));
    await expect(open(path)).rejects.toThrow(new RegExp(`written by process ${child.pid}`));
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
    await (await open(path)).close();
    // a number that another process has by now
    writeFileSync(lock, JSON.stringify({ pid: process.pid, host: hostname(), started: '1' }));
    if (process.platform === 'linux') await (await open(path)).close();
    writeFileSync(lock, JSON.stringify({ pid: 1, host: 'another-machine' }));
    await expect(open(path)).rejects.toThrow(/process 1 on another-machine; wait for it, or if it is gone delete/);
    writeFileSync(lock, '{"pi');
    await (await open(path)).close();
  });

  it.skipIf(process.platform !== 'linux')('takes over the lock of a process that has ended and that nobody has asked how', async () => {
    const path = folder();
    await (await open(path)).close();
    // the shell becomes a program that never waits for the child it inherits
    const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60']);
    const pid = Number(await new Promise<Buffer>((resolve) => parent.stdout.once('data', resolve)));
    try {
      while (!/ Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))) await new Promise((resolve) => setTimeout(resolve, 20));
      writeFileSync(join(path, 'lock'), JSON.stringify({ pid, host: hostname() }));
      await (await open(path)).close();
    } finally {
      parent.kill('SIGKILL');
    }
  });

  it('waits a moment for a process that is about to end', async () => {
    const path = folder();
    await (await open(path)).close();
    const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 1000)']);
    writeFileSync(join(path, 'lock'), JSON.stringify({ pid: child.pid, host: hostname() }));
    await (await open(path)).close();
  });
});

// The experiments of the paper as commands, with a few steps of everything.
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const bin = fileURLToPath(new URL('../packages/cli/bin/tinyfusion.mjs', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'studies-'));
const file = (name: string): string => join(folder, name);

function study(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [bin, 'study', ...args, '--backend', 'wasm', ...(args.length === 0 ? [] : ['--fast', '--out', folder])], { timeout: 250_000 }, (error, stdout, stderr) => resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr }));
  });
}

describe('studies', () => {
  it('are listed with what the paper found', async () => {
    const { stdout } = await study();
    expect(stdout.trim().split('\n').map((line) => line.split(' ')[0])).toEqual(['methods', 'masks', 'patterns', 'recovery', 'teachers', 'convergence', 'speed', 'dynamics', 'activations', 'learning-rates']);
    expect((await study('nonsense')).stderr).toMatch(/study is "nonsense", expected one of methods, masks/);
  });

  // `speed` measures time, and `methods` is what the quickstart does, eleven times over
  it.each(['masks', 'patterns', 'recovery', 'teachers', 'convergence', 'dynamics', 'activations', 'learning-rates'])('%s leaves a table and rows', { timeout: 280_000 }, async (name) => {
    const { code, stderr } = await study(name);
    expect(code, stderr).toBe(0);
    expect(readFileSync(file(`${name}.md`), 'utf8')).toMatch(/The paper, on ImageNet: .*\((figure|table)/);
    expect((JSON.parse(readFileSync(file(`${name}.json`), 'utf8')) as { rows: object[] }).rows.length).toBeGreaterThan(1);
  });

  it('draw plots, and go on from what is there, but for other settings', { timeout: 280_000 }, async () => {
    await study('activations');
    expect(readFileSync(file('activations-teacher.svg'), 'utf8')).toMatch(/^<svg xmlns=.*<\/svg>$/s);
    await study('recovery');
    const { rows } = JSON.parse(readFileSync(file('recovery.json'), 'utf8')) as { rows: object[] };
    expect(rows).toHaveLength(7);
    expect((await study('recovery')).stderr).not.toContain('recover by');
    const other = await study('recovery', '--samples', '30');
    expect([other.code, other.stderr.trim().split('\n').at(-1)]).toEqual([1, expect.stringMatching(/holds the study with other settings/)]);
  });

  it('say of all rows how they were made, and are run by one process at a time', { timeout: 120_000 }, async () => {
    interface Stored {
      command: string;
      rows: object[];
    }
    const stored = (): Stored => JSON.parse(readFileSync(file('speed.json'), 'utf8')) as Stored;
    expect((await study('speed')).code).toBe(0);
    const { rows, command } = stored();
    writeFileSync(file('speed.json'), JSON.stringify({ ...stored(), rows: rows.slice(0, -2) }));
    expect((await study('speed', '--seeds', '1')).stderr).toMatch(/time 12 layers of width \d+: 3\/3 turn/);
    expect(stored().rows).toHaveLength(rows.length);
    expect(stored().command).toBe(`${command}; ${command.replace(' speed ', ' speed --seeds 1 ')}`);
    expect(readFileSync(file('speed.md'), 'utf8')).toContain(`Command: \`${stored().command}\``);

    writeFileSync(file('speed.lock'), JSON.stringify({ pid: process.pid, host: hostname() }));
    expect((await study('speed')).stderr.trim()).toMatch(/is being written by process \d+ of this machine/);
    rmSync(file('speed.lock'));
    writeFileSync(file('speed.json'), '{"rows":');
    expect((await study('speed')).stderr.trim()).toMatch(/error: .*speed\.json holds no study: .*; move it away or use another --out$/);
  });
});

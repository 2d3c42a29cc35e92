// The Slurm script of the guide, as far as it can be run without Slurm: stand-ins for srun, scontrol and npx set what Slurm sets,
// and ranks are Open MPI's.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { hasMpi, mpirun } from './run-program.js';

const script = fileURLToPath(new URL('../../../../examples/train.slurm', import.meta.url));

/** Runs the script with programs of these texts before the system's. */
function run(programs: Record<string, string>): { status: number | null; stdout: string; stderr: string; folder: string } {
  const folder = mkdtempSync(join(tmpdir(), 'slurm-'));
  for (const [name, text] of Object.entries(programs)) {
    writeFileSync(join(folder, name), `#!/bin/bash\n${text}\n`);
    chmodSync(join(folder, name), 0o755);
  }
  const env = { ...process.env, PATH: `${folder}${delimiter}${process.env['PATH']}`, NODE_OPTIONS: '', SLURM_SUBMIT_DIR: folder, SLURM_JOB_ID: '42', SLURM_NTASKS: '2', STEPS: '3' };
  return { ...spawnSync('bash', [script], { cwd: folder, encoding: 'utf8', env }), folder };
}

describe('the Slurm script', () => {
  it('asks for what an sbatch knows, and starts every rank by srun', () => {
    const text = readFileSync(script, 'utf8');
    const options = [...text.matchAll(/^#SBATCH --([a-z-]+)/gm)].map(([, name]) => name);
    expect(options).toEqual(['job-name', 'nodes', 'ntasks-per-node', 'cpus-per-task', 'time', 'output', 'open-mode', 'signal', 'requeue']);
    // sbatch reads its options up to the first command
    expect(text.lastIndexOf('#SBATCH')).toBeLessThan(text.indexOf('set -euo'));
    const ran = run({ srun: 'printf "%s\\n" "$@"' });
    expect(ran.status, ran.stderr).toBe(0);
    expect(ran.stdout.split('\n').slice(0, 5)).toEqual(['--mpi=pmix', '--kill-on-bad-exit=1', 'npx', 'tinyfusion', 'distill']);
    expect(ran.stdout).toContain(`--data\n${ran.folder}/latents\n--steps\n3\n`);
  });

  it('is queued again where it was stopped, and ends with the code of what fails', () => {
    const stopped = run({ srun: 'exit 130', scontrol: 'echo "$@"' });
    expect([stopped.status, stopped.stdout]).toEqual([0, 'requeue 42\n']);
    expect(run({ srun: 'exit 7', scontrol: 'echo "$@"' })).toMatchObject({ status: 7, stdout: '' });
  });

  it.skipIf(!hasMpi)('two ranks of it are two ranks to the command (skipped where there is no MPI)', () => {
    const program = fileURLToPath(new URL('programs/values.mjs', import.meta.url));
    const ran = run({
      // srun gives each rank SLURM_STEP_NUM_TASKS; the ranks find one another by Open MPI's own means here
      srun: `shift 2; exec ${mpirun(2).join(' ')} env SLURM_STEP_NUM_TASKS=2 "$@"`,
      npx: `exec "${process.execPath}" "${program}"`,
    });
    expect(ran.status, ran.stderr).toBe(0);
    const lines = ran.stdout.trim().split('\n').map((line) => JSON.parse(line) as { rank: number; size: number });
    expect(lines.map(({ rank }) => rank).toSorted()).toEqual([0, 1]);
    expect(lines.every(({ size }) => size === 2)).toBe(true);
  });
});

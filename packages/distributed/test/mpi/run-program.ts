import { spawn, spawnSync } from 'node:child_process';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What a program did. */
export interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
  seconds: number;
}

/** Runs a program of `programs/` on the built packages, under a command where one is given. */
export function runProgram(name: string, args: readonly string[] = [], { under = [], env = {} }: { under?: readonly string[]; env?: Record<string, string> } = {}): Promise<Ran> {
  const [command, ...rest] = [...under, process.execPath, name.startsWith('/') ? name : fileURLToPath(new URL(`programs/${name}.mjs`, import.meta.url)), ...args];
  const start = performance.now();
  const child = spawn(command!, rest, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, NODE_OPTIONS: '', ...env } });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (text: Buffer) => (stdout += text.toString()));
  child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr, seconds: (performance.now() - start) / 1000 }));
  });
}

/** Open MPI's mpirun for so many ranks; more than there are cores, and as root, where that has to be. */
export function mpirun(ranks: number): string[] {
  return ['mpirun', '--allow-run-as-root', '--oversubscribe', '--bind-to', 'none', '-np', String(ranks)];
}

/** Whether Open MPI is here. */
export const hasMpi = /Open MPI|OpenRTE/.test(spawnSync('mpirun', ['--version'], { encoding: 'utf8' }).stdout ?? '');

/** MPICH's launcher and library, where TINYFUSION_TEST_MPICH names the folder that its Debian packages were unpacked to: `/` where they are installed. */
export function mpich(ranks: number): { under: string[]; env: Record<string, string>; library: string } | undefined {
  const root = process.env['TINYFUSION_TEST_MPICH'];
  if (root === undefined) return undefined;
  const libraries = join(root, 'usr/lib/x86_64-linux-gnu');
  return { under: [join(root, 'usr/bin/mpiexec.hydra'), '-np', String(ranks)], env: { LD_LIBRARY_PATH: libraries, PATH: `${join(root, 'usr/bin')}${delimiter}${process.env['PATH'] ?? ''}` }, library: join(libraries, 'libmpich.so.12') };
}

/** The lines of JSON that a program wrote. */
export function jsonLines<T>({ stdout, stderr }: Ran): T[] {
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
  if (lines.length === 0) throw new Error(`no JSON was written: ${stdout}${stderr}`);
  return lines.map((line) => JSON.parse(line) as T);
}

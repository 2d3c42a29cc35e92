// A contestant: a process of its own that does its work whenever it is told to.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/**
 * @param program file in contestants/
 * @param work what it does, as JSON
 * @returns `run()` gives `{ value, cpu, check }`; `started` is the time until it was ready, in ms, and `cpu` the processor's
 */
export async function startContestant(program, work, { python = 'python3', env = {} } = {}) {
  const file = fileURLToPath(new URL(`contestants/${program}`, import.meta.url));
  const [command, before] = program.endsWith('.py') ? [python, []] : [process.execPath, ['--expose-gc']];
  const from = performance.now();
  const child = spawn(command, [...before, file, JSON.stringify(work)], { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  let errors = '';
  child.stderr.on('data', (text) => void (errors = (errors + text).slice(-4000)));
  const waiting = [];
  let failure;
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (!line.startsWith('{"')) return;
    waiting.shift()?.resolve(JSON.parse(line));
  });
  child.once('exit', (code, signal) => {
    failure = new Error(`${program} ${JSON.stringify(work)} ended with ${code ?? signal}: ${errors.trim()}`);
    for (const { reject } of waiting.splice(0)) reject(failure);
  });
  const next = () => (failure === undefined ? new Promise((resolve, reject) => waiting.push({ resolve, reject })) : Promise.reject(failure));
  const { cpu } = await next();
  return {
    started: performance.now() - from,
    cpu,
    run: () => {
      const result = next();
      child.stdin.write('go\n');
      return result;
    },
    stop: () => new Promise((resolve) => {
      if (failure !== undefined) return resolve();
      child.once('exit', resolve);
      child.kill();
    }),
  };
}

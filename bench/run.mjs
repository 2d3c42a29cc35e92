// Ratios against peers, each measured in turns in one run.
//   pnpm bench [--backend wasm|webgpu] [--json FILE] [--only TEXT] [--runs N] [--clock wall|cpu] [--python PATH]    (after pnpm build)
// On webgpu what a device is asked for is counted, see webgpu-counts.mjs. --only takes the contests whose names hold the text; rows of others stay in the JSON file as they are. --clock cpu takes
// processor time where one thread works, for machines that do other things besides. Peers that are not here are left out,
// and named.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startContestant } from './contestant.mjs';
import { contests } from './contests.mjs';

const { values } = parseArgs({ options: { backend: { type: 'string', default: 'wasm' }, json: { type: 'string' }, only: { type: 'string', default: '' }, runs: { type: 'string', default: '5' }, clock: { type: 'string', default: 'wall' }, python: { type: 'string' } } });
const runs = Number(values.runs);
const usage = (problem) => {
  console.error(problem);
  process.exit(1);
};
if (!Number.isInteger(runs) || runs < 1) usage(`--runs is ${values.runs}, expected a positive integer`);
if (!['wasm', 'webgpu'].includes(values.backend)) usage(`--backend is ${values.backend}, expected wasm or webgpu`);
if (!['wall', 'cpu'].includes(values.clock)) usage(`--clock is ${values.clock}, expected wall or cpu`);
const chosen = contests.filter(({ name }) => name.includes(values.only));
if (chosen.length === 0) usage(`--only is ${JSON.stringify(values.only)}, expected a part of one of: ${contests.map(({ name }) => name).join('; ')}`);

const python = [values.python, 'python3', '/usr/bin/python3'].find((path) => path !== undefined && spawnSync(path, ['-c', 'import torch'], { stdio: 'ignore' }).status === 0);
const torch = python && spawnSync(python, ['-c', 'import torch; print(torch.__version__)'], { encoding: 'utf8' }).stdout.trim();
const machine = `${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown CPU'}, Node ${process.versions.node}${torch ? `, PyTorch ${torch}` : ''}`;
const date = new Date().toISOString().slice(0, 10);
const rows = [];
const missing = [];
if (values.backend === 'webgpu') {
  // times are for a GPU; without one, what a device is asked for is counted
  const file = join(mkdtempSync(join(tmpdir(), 'bench-')), 'counts.json');
  execFileSync(process.execPath, [fileURLToPath(new URL('webgpu-counts.mjs', import.meta.url)), '--runs', values.runs, '--json', file], { stdio: ['ignore', 'ignore', 'inherit'] });
  rows.push(...JSON.parse(readFileSync(file, 'utf8')).map((row) => ({ ...row, date })));
  rmSync(dirname(file), { recursive: true });
}
for (const contest of values.backend === 'wasm' ? chosen : []) {
  try {
    rows.push(...(await hold(contest)));
  } catch (error) {
    missing.push(`${contest.name}: ${error.message.split('\n')[0]}`);
    process.stderr.write(`\n${error.message}\n`);
  }
}
console.table(rows.map(({ name, peer, ratio, ours, theirs, unit }) => ({ name, peer, ratio, ours, theirs, unit })));
console.log(`ratio: how many times faster than the peer, or how many times less; medians, in turns; ${machine}`);
for (const line of missing) console.log(`not measured: ${line}`);
if (values.json !== undefined) {
  const others = existsSync(values.json) ? JSON.parse(readFileSync(values.json, 'utf8')).filter((row) => !rows.some((r) => r.name === row.name && r.backend === row.backend && r.peer === row.peer)) : [];
  const order = contests.map(({ name }) => name);
  const place = ({ name }) => order.findIndex((start) => name.startsWith(start));
  writeFileSync(values.json, `${JSON.stringify([...others, ...rows].toSorted((a, b) => place(a) - place(b)), null, 2)}\n`);
}
if (missing.length > 0) process.exitCode = 1;

/** Rows of one contest. */
async function hold({ name, ours, peers, unit = 'ms', clock = values.clock, fresh = false, runs: most = runs }) {
  const contestants = [{ ...ours, runs: most, results: [] }];
  for (const peer of peers) {
    if (peer.program.endsWith('.py') && !python) missing.push(`${name}, ${peer.peer}: no python3 here has torch`);
    else contestants.push({ ...peer, runs: Math.min(most, peer.runs ?? most), results: [] });
  }
  const start = async ({ program, work }) => {
    const threads = String(work.threads ?? 1);
    return startContestant(program, work, { python, env: { OMP_NUM_THREADS: threads, OPENBLAS_NUM_THREADS: threads, OMP_WAIT_POLICY: 'passive' } });
  };
  try {
    if (!fresh) {
      for (const contestant of contestants) {
        try {
          contestant.process = await start(contestant);
        } catch (error) {
          if (contestant === contestants[0]) throw error;
          missing.push(`${name}, ${contestant.peer}: ${error.message.split('\n').find((line) => line.includes('Error')) ?? error.message}`);
          contestant.runs = 0;
        }
      }
    }
    for (let i = 0; i < most; i++) {
      for (const contestant of contestants) {
        if (i >= contestant.runs) continue;
        process.stderr.write(`\r${name}: ${i + 1}/${most} ${contestant.peer ?? 'ours'}\x1b[K`);
        if (fresh) {
          const started = await start(contestant);
          contestant.results.push({ value: started.started, cpu: started.cpu });
          await started.stop();
        } else contestant.results.push(await contestant.process.run());
      }
    }
    process.stderr.write('\n');
  } finally {
    for (const { process: child } of contestants) await child?.stop();
  }
  const [mine, ...theirs] = contestants;
  return theirs.filter(({ runs: count }) => count > 0).flatMap(({ peer, other = false, runs: count, results }) => {
    // what they computed must be the same
    const [a, b] = [mine.results[0].check, results[0].check];
    if (!other && a !== undefined && b !== undefined && Math.abs(a - b) > 2e-3 * Math.abs(a)) throw new Error(`${name}: ${peer} computes ${b}, ours ${a}: they do not do the same`);
    const byTime = unit === 'ms' && typeof mine.results[0].value === 'number';
    const metrics = byTime || typeof mine.results[0].value === 'number' ? [[name, (r) => (byTime && clock === 'cpu' ? r.cpu : r.value), byTime && clock === 'cpu' ? 'ms of processor time' : unit]] : Object.keys(mine.results[0].value).map((metric) => [`${name}: ${metric}`, (r) => r.value[metric], metric]);
    return metrics.map(([title, number, of]) => {
      const [m, t] = [median(mine.results.map(number)), median(results.map(number))];
      return { name: title, backend: 'wasm', peer, ratio: round(t / m, 2), ours: round(m, 1), theirs: round(t, 1), unit: of, runs: count, machine, date };
    });
  });
}

function median(list) {
  return list.toSorted((x, y) => x - y)[list.length >> 1];
}

function round(number, digits) {
  return Number(number.toFixed(digits));
}

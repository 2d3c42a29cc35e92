// How much faster two MPI ranks train than one process with the same global batch, and what the machine allows: two processes
// that share nothing, each with half the batch. In turns, as machines change their speed from minute to minute:
//   node packages/distributed/bench/two-ranks.mjs [rounds = 5] [batch = 64] [steps = 15]
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const [rounds, batch, steps] = [Number(process.argv[2] ?? 5), Number(process.argv[3] ?? 64), process.argv[4] ?? '15'];
const scaling = fileURLToPath(new URL('scaling.mjs', import.meta.url));

async function measured(batchSize, ...launcher) {
  const [command, ...args] = [...launcher, process.execPath, scaling, steps, String(batchSize)];
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let told = '';
  child.stdout.on('data', (data) => (told += data));
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  if (code !== 0) throw new Error(`${command} ended with ${code}; two ranks need Open MPI's mpirun`);
  return JSON.parse(told.split('\n').find((line) => line.startsWith('{')));
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const rows = [];
for (let round = 0; round < rounds; round++) {
  const one = await measured(batch);
  const two = await measured(batch, 'mpirun', '-np', '2', '--allow-run-as-root');
  const apart = await Promise.all([measured(batch / 2), measured(batch / 2)]);
  rows.push({ oneMs: one.stepMs, twoMs: two.stepMs, speedUp: one.stepMs / two.stepMs, bound: one.stepMs / Math.max(...apart.map(({ stepMs }) => stepMs)), reduction: two.reductionMs / two.stepMs });
  process.stderr.write(`round ${round + 1} of ${rounds}: ${JSON.stringify(rows.at(-1), (_, value) => (typeof value === 'number' ? +value.toFixed(3) : value))}\n`);
}
const of = (name) => +median(rows.map((row) => row[name])).toFixed(3);
console.log(JSON.stringify({ batch, rounds, speedUp: of('speedUp'), apart: of('bound'), reductionShare: of('reduction') }));

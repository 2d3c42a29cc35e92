// Ratios against peers, measured in turns in one run.
//   pnpm bench [--json FILE] [--runs N]        (after pnpm build)
import { fork } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { json: { type: 'string' }, runs: { type: 'string', default: '9' } } });
const runs = Number(values.runs);
if (!Number.isInteger(runs) || runs < 1) {
  console.error(`--runs is ${values.runs}, expected a positive integer`);
  process.exit(1);
}

/** name, peer, then ours and theirs as arguments of variant.mjs, and what a ratio above 1 means. */
const contests = [
  { name: "training step of the quickstart's teacher (width 96, 12 blocks, 16 tokens, batch 64)", peer: 'stock tfjs-backend-wasm', ours: ['ours', 'training-step', '12', '96', '64'], theirs: ['stock', 'training-step', '12', '96', '64'] },
  { name: "forward pass of the quickstart's teacher", peer: 'stock tfjs-backend-wasm', ours: ['ours', 'sampling-step', '12', '96', '64'], theirs: ['stock', 'sampling-step', '12', '96', '64'] },
  { name: 'images a second, 14 layers (width 96, batch 64)', peer: '28 layers, the same kernels', ours: ['ours', 'sampling-step', '14', '96', '64'], theirs: ['ours', 'sampling-step', '28', '96', '64'] },
];

const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.versions.node}`;
const rows = [];
for (const { name, peer, ours, theirs } of contests) {
  const [a, b] = [await contestant(ours), await contestant(theirs)];
  const times = [[], []];
  for (let i = 0; i < runs; i++) {
    times[0].push(await a.run());
    times[1].push(await b.run());
    process.stderr.write(`\r${name}: ${i + 1}/${runs}`);
  }
  process.stderr.write('\n');
  a.stop();
  b.stop();
  const [mine, peers] = times.map(median);
  rows.push({ name, backend: 'wasm', peer, ratio: +(peers / mine).toFixed(2), ours: +mine.toFixed(1), theirs: +peers.toFixed(1), unit: 'ms', runs, machine });
}
console.table(rows.map(({ name, peer, ratio, ours, theirs }) => ({ name, peer, ratio, 'ours (ms)': ours, 'theirs (ms)': theirs })));
console.log(`ratio: how many times faster than the peer; medians of ${runs}, in turns; ${machine}`);
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`);

async function contestant(args) {
  const child = fork(new URL('variant.mjs', import.meta.url), args, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const answer = () =>
    new Promise((resolve, reject) => {
      child.once('message', resolve);
      child.once('exit', (code) => reject(new Error(`variant.mjs ${args.join(' ')} ended with ${code}`)));
    });
  await answer();
  return {
    run: async () => {
      const result = answer();
      child.send('go');
      return result;
    },
    stop: () => {
      child.removeAllListeners('exit');
      child.kill();
    },
  };
}

function median(list) {
  return list.toSorted((x, y) => x - y)[list.length >> 1];
}

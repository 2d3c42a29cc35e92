// The way of a new user: the commands of README.md in their order, with few steps, in an empty folder; and then the models
// that came of it are opened, one of them cut from a teacher of one's own images.
//   node test/walk/walk.mjs        needs what README.md says: Node and git
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = new URL('../..', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'tinyfusion-walk-'));
const inFolder = (word) => (/^[\w-]+\.(json|safetensors|png)$/.test(word) ? join(folder, word) : word);

/** Fewer steps and images for each job, after its own options. */
const small = {
  '--help': [],
  'learn-masks': ['--steps', '2', '--batch', '8', '--images', '200'],
  prune: [],
  distill: ['--steps', '2', '--batch', '8', '--images', '200'],
  sample: ['--steps', '2'],
  evaluate: ['--samples', '20', '--steps', '2'],
};

/** What becomes of a command of README.md; a command that none knows fails the walk. */
const ways = [
  [/^npm run quickstart$/, () => [['npm', 'run', 'quickstart', '--', '--fast', '--out', join(folder, 'quickstart')], ['quickstart/report.html']]],
  [/^npm test$/, () => 'is the test suite'],
  [/^npm install /, () => 'is what pnpm test:integrations does'],
  [/^npx tinyfusion (.*--ckpt |fetch |evaluate imagenet|convert DiT)/, () => 'needs published weights; its options are tested'],
  [/^npx tinyfusion /, (words) => [['npx', ...words.slice(1).map(inFolder), ...small[words[2]]], words.slice(2).filter((word, i, all) => all[i - 1] === '--out')]],
  // where a person is, files are found and left
  [/^npm run example -- own-dataset photos$/, async (words) => (await photos(), [['npm', '--prefix', root, ...words.slice(1), '2'], ['own.safetensors'], folder])],
];

const lines = [...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([, block]) => block.trim().split('\n')).map((line) => line.replace(/\s+#.*$/, ''));
const from = performance.now();
for (const line of lines) {
  const way = ways.find(([pattern]) => pattern.test(line)) ?? fail(`README.md says ${JSON.stringify(line)}, which no test walks`);
  const words = line.split(/\s+/);
  const step = await way[1](words);
  if (typeof step === 'string') {
    console.log(`– ${line}: ${step}`);
    continue;
  }
  const [[command, ...args], files, cwd = root] = step;
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8', env: { ...process.env, NO_UPDATE_NOTIFIER: '1' }, maxBuffer: 2 ** 26 });
  if (status !== 0) fail(`${[command, ...args].join(' ')} ended with ${status}\n${stdout}${stderr}`);
  for (const file of files) if (!existsSync(join(folder, file))) fail(`${line} left no ${file}`);
  console.log(`✓ ${line}  ${((performance.now() - start) / 1000).toFixed(1)} s`);
}
if (blocks('recovered.safetensors') !== 6) fail('recovered.safetensors is not the teacher’s half');
if (blocks('own.safetensors') !== 4) fail('own.safetensors is not half of a model of one’s own');
rmSync(folder, { recursive: true, force: true });
console.log(`walked in ${((performance.now() - from) / 1000).toFixed(0)} s`);

/** How many blocks a safetensors file has. */
function blocks(name) {
  const bytes = Buffer.alloc(8);
  const file = openSync(join(folder, name));
  readSync(file, bytes, 0, 8, 0);
  const header = Buffer.alloc(Number(bytes.readBigUInt64LE()));
  readSync(file, header, 0, header.length, 8);
  return new Set(Object.keys(JSON.parse(header.toString())).flatMap((key) => /^blocks\.(\d+)\./.exec(key)?.[1] ?? [])).size;
}

/** Two classes of a person's own pictures. */
async function photos() {
  const { encode } = await import('fast-png'); // there when the first command has installed
  for (const [label, name] of ['cats', 'dogs'].entries()) {
    mkdirSync(join(folder, 'photos', name), { recursive: true });
    for (let i = 0; i < 6; i++) writeFileSync(join(folder, 'photos', name, `${i}.png`), encode({ width: 20, height: 18, channels: 3, data: Uint8Array.from({ length: 20 * 18 * 3 }, (_, at) => (at * (7 + label) + 31 * i) % 256) }));
  }
}

function fail(message) {
  console.error(message);
  process.exit(1);
}

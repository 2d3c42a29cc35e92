// The linear algebra of evaluation against SciPy's and numpy's, in turns in one run, on generated features.
//   node bench/frechet.mjs [--dimension D] [--samples N] [--points N] [--runs N] [--python python3] [--json FILE]   (after pnpm build)
// At the defaults it takes about five minutes, 2.5 GB of memory and 900 MB in the folder for temporary files.
import { fork, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createRng } from '@tinyfusion/core';
import { FeatureStatistics, frechetDistance, precisionRecall } from '@tinyfusion/eval';

const { values } = parseArgs({ options: { dimension: { type: 'string', default: '2048' }, samples: { type: 'string', default: '50000' }, points: { type: 'string', default: '10000' }, runs: { type: 'string', default: '3' }, python: { type: 'string', default: 'python3' }, json: { type: 'string' } } });
const [d, samples, points, runs] = ['dimension', 'samples', 'points', 'runs'].map((name) => {
  const number = Number(values[name]);
  if (Number.isInteger(number) && number > 0) return number;
  console.error(`--${name} is ${values[name]}, expected a positive integer`);
  process.exit(1);
});

/** Rows that are not negative, correlated by factors of falling size, as Inception's are. */
function features(count, seed, shift) {
  const loadings = createRng(1).normal(32 * d).map((v, i) => (v * 0.5) / (1 + Math.floor(i / d) / 4));
  const rng = createRng(seed);
  const out = new Float32Array(count * d);
  const row = new Float32Array(d);
  for (let i = 0; i < count; i++) {
    row.set(rng.normal(d));
    const factors = rng.normal(32);
    for (let f = 0; f < 32; f++) for (let j = 0, at = f * d, x = factors[f]; j < d; j++, at++) row[j] += x * loadings[at];
    for (let j = 0, at = i * d; j < d; j++, at++) out[at] = Math.max(0, 0.3 * row[j] + 0.2 + shift * ((j % 7) - 2));
  }
  return out;
}

const common = `
import json, sys, time
import numpy as np, scipy.linalg
d, answer, paths = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
def distance(m1, s1, m2, s2):
    start = time.perf_counter()
    root = scipy.linalg.sqrtm(s1 @ s2)
    seconds = time.perf_counter() - start
    return float(((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * np.trace(root).real), seconds
`;
const fromStatistics = `${common}
m1, s1, m2, s2 = [np.fromfile(path) for path in paths]
value, seconds = distance(m1, s1.reshape(d, d), m2, s2.reshape(d, d))
json.dump({"distance": value, "root": seconds}, open(answer, "w"))
`;
const fromFeatures = `${common}
moments, seconds = [], []
for path in paths:
    x = np.fromfile(path, np.float32).reshape(-1, d).astype(np.float64)
    start = time.perf_counter()
    moments += [x.mean(axis=0), np.cov(x, rowvar=False)]
    seconds.append(time.perf_counter() - start)
value, root = distance(*moments)
json.dump({"distance": value, "root": root, "covariance": seconds[0]}, open(answer, "w"))
`;

if (process.send !== undefined) {
  // a process of its own, so that the peak of its memory is that of this alone
  const [a, b] = [features(points, 5, 0), features(points, 6, 0.01)];
  const from = performance.now();
  const { precision, recall } = await precisionRecall(a, b, { dimension: d });
  process.send({ seconds: (performance.now() - from) / 1000, megabytes: process.resourceUsage().maxRSS / 1024, precision, recall });
  process.exit(0);
}

const version = spawnSync(values.python, ['-c', 'import numpy, scipy; print(f"SciPy {scipy.__version__}, numpy {numpy.__version__}")'], { encoding: 'utf8' });
if (version.status !== 0) {
  console.log(`skipped: the Fréchet distance against SciPy; ${values.python} has no scipy (name another with --python)`);
  process.exit(0);
}
const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.versions.node}, ${version.stdout.trim()}`;
const folder = mkdtempSync(join(tmpdir(), 'frechet-'));
const rows = [];
try {
  // first, while this process is small: Linux counts a parent's memory into its child's peak
  const child = fork(fileURLToPath(import.meta.url), process.argv.slice(2));
  const measured = await new Promise((resolve, reject) => {
    child.once('message', resolve);
    child.once('exit', (code) => reject(new Error(`precision and recall ended with ${code}`)));
  });
  row(`precision and recall of ${points} × ${d} against ${points}`, measured.seconds, undefined, { 'peak MB': Math.round(measured.megabytes) });

  const few = Math.ceil(d / 2);
  const many = Math.ceil(2.5 * d);
  const [a, b, singular] = [statisticsOf(features(many, 2, 0)), statisticsOf(features(many, 3, 0.01)), statisticsOf(features(few, 4, 0.01))];
  contest(`Fréchet distance, D = ${d}, ${many} samples each`, a, b);
  contest(`Fréchet distance, D = ${d}, ${many} against ${few} samples`, a, singular);

  const [generated, real] = [features(samples, 2, 0), features(samples, 3, 0.01)];
  const paths = [generated, real].map((array, i) => write(`features${i}`, new Uint8Array(array.buffer)));
  let from = performance.now();
  const first = statisticsOf(generated);
  const seconds = (performance.now() - from) / 1000;
  const second = statisticsOf(real);
  from = performance.now();
  const { distance } = frechetDistance(first, second);
  const distanceSeconds = (performance.now() - from) / 1000;
  const theirs = python(fromFeatures, ...paths);
  row(`mean and covariance of ${samples} × ${d}`, seconds, theirs.covariance);
  row(`Fréchet distance of ${samples} × ${d}`, distanceSeconds, theirs.root, { 'relative difference': Math.abs(distance - theirs.distance) / theirs.distance });
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.table(Object.fromEntries(rows.map(({ name, ...rest }) => [name, rest])));
console.log(`seconds; ratio: how many times as fast as SciPy's sqrtm and numpy's cov; the second and third row are medians of ${runs}; ${machine}`);
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows.map((r) => ({ ...r, machine })), null, 2)}\n`);

function statisticsOf(array) {
  const statistics = new FeatureStatistics(d);
  statistics.add(array);
  return statistics.finish();
}

/** Ours and theirs in turns on the same covariances. */
function contest(name, one, other) {
  const paths = [one, other].flatMap(({ mean, covariance }, i) => [write(`mean${i}`, new Uint8Array(mean.buffer)), write(`covariance${i}`, new Uint8Array(covariance.buffer))]);
  const times = [[], []];
  let difference = 0;
  for (let i = 0; i < runs; i++) {
    const from = performance.now();
    const { distance } = frechetDistance(one, other);
    times[0].push((performance.now() - from) / 1000);
    const theirs = python(fromStatistics, ...paths);
    times[1].push(theirs.root);
    difference = Math.abs(distance - theirs.distance) / theirs.distance;
  }
  row(name, ...times.map((list) => list.toSorted((x, y) => x - y)[list.length >> 1]), { 'relative difference': difference });
}

function row(name, ours, theirs, more = {}) {
  rows.push({ name, ours: +ours.toFixed(2), ...(theirs === undefined ? {} : { theirs: +theirs.toFixed(2), ratio: +(theirs / ours).toFixed(2) }), ...more });
  process.stderr.write(`${name}: ${ours.toFixed(2)} s\n`);
}

function write(name, bytes) {
  const path = join(folder, name);
  const file = openSync(path, 'w');
  for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at, Math.min(2 ** 28, bytes.length - at));
  closeSync(file);
  return path;
}

function python(script, ...paths) {
  const answer = join(folder, 'answer.json');
  const { status } = spawnSync(values.python, ['-c', script, String(d), answer, ...paths], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) throw new Error(`${values.python} ended with ${status}`);
  return JSON.parse(readFileSync(answer, 'utf8'));
}

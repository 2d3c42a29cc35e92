// Kills a training run again and again, and sees that it ends as if nothing had happened.
//   pnpm test:kill            8 kills
//   pnpm test:kill --full     200 kills
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, watch } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { useBackend } from '../../packages/kernels/dist/index.js';
import { createRng } from '../../packages/core/dist/index.js';
import { DiT, saveModel } from '../../packages/models/dist/index.js';
import { writeFileAtomic } from '../../packages/weights/dist/node.js';

const { values } = parseArgs({ options: { full: { type: 'boolean', default: false }, kills: { type: 'string' }, seed: { type: 'string', default: '1' } } });
const wanted = Number(values.kills ?? (values.full ? 200 : 8));
const [steps, every] = [240, 10];
const bin = fileURLToPath(new URL('../../packages/cli/bin/tinyfusion.mjs', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'kill-'));
const rng = createRng(Number(values.seed));
const uniform = () => rng.uniform(1)[0];

await useBackend({ prefer: 'cpu' });
const config = { inputSize: 8, patchSize: 2, inChannels: 4, hiddenSize: 32, depth: 2, numHeads: 2, mlpRatio: 2, classDropoutProb: 0.1, numClasses: 10, learnSigma: true };
for (const [name, depth] of [['student', 1], ['teacher', 2]]) await writeFileAtomic(join(folder, `${name}.safetensors`), await saveModel(new DiT({ ...config, depth }, { init: createRng(depth) })));

function start(run, out) {
  const args = ['distill', '--student', 'student.safetensors', '--teacher', 'teacher.safetensors', '--steps', `${steps}`, '--batch', '16', '--images', '200', '--run', run, '--save-every', `${every}`, '--out', out, '--backend', 'wasm'];
  const child = spawn(process.execPath, [bin, ...args], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (text) => (stderr += text));
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal, stderr })));
  return { child, ended };
}

const saved = (run) => (existsSync(join(folder, run)) ? readdirSync(join(folder, run)).flatMap((name) => /^step-(\d+)-\w+\.safetensors$/.exec(name)?.[1] ?? []).map(Number) : []).reduce((a, b) => Math.max(a, b), 0);
const eventsOf = (run) => readFileSync(join(folder, run, 'events.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
// times differ from run to run
const numbers = (run) => eventsOf(run).map(({ step, task, values: v }) => JSON.stringify({ step, task, values: v })).join('\n');
const hash = (name) => createHash('sha256').update(readFileSync(join(folder, name))).digest('hex');

function fail(message) {
  console.error(`FAILED: ${message}\n${folder} is left to be looked at`);
  process.exit(1);
}

const whole = await start('whole', 'whole.safetensors').ended;
if (whole.code !== 0) fail(`the run that was not killed ended with ${whole.code}: ${whole.stderr}`);
const reference = { weights: hash('whole.safetensors'), best: hash('whole/best.safetensors'), curve: hash('whole.safetensors.curve.json'), events: numbers('whole') };

const done = { kills: 0, inSaves: 0, runs: 0, mostLost: 0 };
do {
  const run = `run-${done.runs}`;
  for (;;) {
    const before = saved(run);
    const { child, ended } = start(run, `${run}.safetensors`);
    let stop = () => {};
    if (done.kills < wanted) {
      // a third of the kills while a file is being written, the others at any moment once the run is under way
      const inSave = uniform() < 1 / 3;
      let seen = 0;
      const target = 1 + Math.floor(3 * uniform());
      const delay = 400 * uniform();
      const watcher = setInterval(() => existsSync(join(folder, run)) && (clearInterval(watcher), follow()), 5);
      let files;
      const kill = (during) => {
        if (child.exitCode === null && child.kill('SIGKILL')) {
          done.kills += 1;
          if (during) done.inSaves += 1;
        }
        stop();
      };
      const follow = () => {
        files = watch(join(folder, run), (_, name) => {
          if (inSave ? (name ?? '').endsWith('.part') && ++seen === target : /^step-.*\.safetensors$/.test(name ?? '') && ++seen === 1) {
            if (inSave) kill(true);
            else setTimeout(() => kill(false), delay);
          }
        });
      };
      stop = () => {
        clearInterval(watcher);
        files?.close();
      };
    }
    const { code, signal, stderr } = await ended;
    stop();
    if (signal === null && code !== 0) fail(`a run after ${done.kills} kills ended with ${code}: ${stderr}`);
    if (/damaged/.test(stderr)) fail(`a save was damaged by a kill: ${stderr}`);
    const events = existsSync(join(folder, run, 'events.jsonl')) ? eventsOf(run) : [];
    // it went on from what was saved: no step between is done twice or left out
    events.forEach(({ step }, i) => step === i + 1 || fail(`the events of ${run} are not in order at step ${step}`));
    const lost = events.length - saved(run);
    done.mostLost = Math.max(done.mostLost, lost);
    if (lost > every) fail(`${lost} steps would be lost, saved every ${every}`);
    if (saved(run) < before) fail(`the run went back from step ${before} to ${saved(run)}`);
    if (code === 0) break;
  }
  const got = { weights: hash(`${run}.safetensors`), best: hash(`${run}/best.safetensors`), curve: hash(`${run}.safetensors.curve.json`), events: numbers(run) };
  for (const name of Object.keys(reference)) {
    // the command of a result names its own files
    if (name !== 'weights' && name !== 'best' && got[name] !== reference[name]) fail(`${name} of ${run} differ from those of the run that was not killed`);
  }
  for (const file of [`${run}.safetensors`, `${run}/best.safetensors`]) {
    const a = tensorBytes(readFileSync(join(folder, file)));
    const b = tensorBytes(readFileSync(join(folder, file.replace(run, 'whole'))));
    if (!a.equals(b)) fail(`the weights of ${file} differ from those of the run that was not killed`);
  }
  done.runs += 1;
  rmSync(join(folder, run), { recursive: true });
  process.stderr.write(`${done.kills} kills, ${done.inSaves} of them inside a save; ${done.runs} runs finished as the one that was not killed\n`);
} while (done.kills < wanted);
rmSync(folder, { recursive: true });
console.log(`ok: ${done.kills} kills, ${done.inSaves} inside a save; ${done.runs} runs ended with the weights, the best weights, the curve and the events of the run that was not killed; ${done.mostLost} steps were lost at most, saved every ${every}`);

/** A safetensors file without its header. */
function tensorBytes(file) {
  return file.subarray(8 + Number(file.readBigUInt64LE(0)));
}

// Cutting a checkpoint of DiT-XL/2's size against copying the bytes that stay, in turns in one run.
//   node bench/surgery.mjs [--runs N] [--json FILE]   (after pnpm build)
// Takes 5.4 GB in the folder for temporary files.
import { execFileSync } from 'node:child_process';
import { closeSync, copyFileSync, fsyncSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createRng } from '@tinyfusion/core';

const { values } = parseArgs({ options: { runs: { type: 'string', default: '3' }, json: { type: 'string' } } });
const runs = Number(values.runs);
if (!Number.isInteger(runs) || runs < 1) throw new Error(`--runs is ${values.runs}, expected a positive integer`);

const [depth, width] = [28, 1152];
const parts = { 'attn.qkv.weight': [3 * width, width], 'attn.proj.weight': [width, width], 'mlp.fc1.weight': [4 * width, width], 'mlp.fc2.weight': [width, 4 * width], 'adaLN_modulation.1.weight': [6 * width, width] };
const folder = mkdtempSync(join(tmpdir(), 'tinyfusion-surgery-'));
const [whole, half, copy] = ['whole.safetensors', 'half.safetensors', 'copy.safetensors'].map((name) => join(folder, name));
try {
  writeWhole();
  const keep = Array.from({ length: depth / 2 }, (_, i) => 2 * i).join(',');
  const cut = () => peakOf(['prune', '--ckpt', whole, '--keep', keep, '--out', half]);
  cut(); // both files exist, and the page cache has seen what it will
  const [times, copies, peaks] = [[], [], []];
  for (let run = 0; run < runs; run++) {
    rmSync(copy, { force: true });
    copies.push(seconds(() => copyAndSync(half, copy)));
    rmSync(half, { force: true });
    times.push(seconds(() => void peaks.push(cut())));
  }
  const [ours, theirs] = [Math.min(...times), Math.min(...copies)];
  const row = { name: `cut ${(statSync(whole).size / 1e9).toFixed(2)} GB to half`, backend: 'none', peer: 'copying the half', ratio: +(theirs / ours).toFixed(2), ours: +ours.toFixed(2), theirs: +theirs.toFixed(2), unit: 's', runs, peakMB: Math.max(...peaks), machine: `${cpus().length} × ${cpus()[0].model.trim()}, Node ${process.versions.node}`, date: new Date().toISOString().slice(0, 10) };
  console.log(`${row.name}: ${ours.toFixed(2)} s; copying what stays: ${theirs.toFixed(2)} s (${(ours / theirs).toFixed(2)} times that); ${row.peakMB} MB at most`);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify([row], null, 2)}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

function writeWhole() {
  const header = {};
  let end = 0;
  for (let i = 0; i < depth; i++) {
    for (const [name, shape] of Object.entries(parts)) header[`blocks.${i}.${name}`] = { dtype: 'F32', shape, data_offsets: [end, (end += 4 * shape[0] * shape[1])] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = openSync(whole, 'w');
  writeSync(file, length);
  writeSync(file, text);
  const chunk = new Uint8Array(createRng(0).normal(1 << 22).buffer);
  for (let left = end; left > 0; left -= chunk.length) writeSync(file, chunk, 0, Math.min(left, chunk.length));
  fsyncSync(file);
  closeSync(file);
}

/** Runs the command line and gives the most memory that it took, in MB. */
function peakOf(args) {
  const program = `process.argv.splice(1, 1); process.on('exit', () => console.error('peak ' + process.resourceUsage().maxRSS)); await import(${JSON.stringify(new URL('../packages/cli/bin/tinyfusion.mjs', import.meta.url).href)});`;
  const script = join(folder, 'measured.mjs');
  writeFileSync(script, program.replace('process.argv.splice(1, 1); ', ''));
  const out = execFileSync('sh', ['-c', '"$@" 2>&1', 'sh', process.execPath, script, ...args], { encoding: 'utf8', cwd: fileURLToPath(new URL('.', import.meta.url)) });
  return Math.round(Number(/peak (\d+)/.exec(out)[1]) / 1024);
}

function copyAndSync(from, to) {
  copyFileSync(from, to);
  const file = openSync(to, 'r+');
  fsyncSync(file);
  closeSync(file);
}

function seconds(run) {
  const from = performance.now();
  run();
  return (performance.now() - from) / 1000;
}

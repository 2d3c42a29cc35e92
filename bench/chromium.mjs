// Forward passes in Chromium, ours against ONNX Runtime web's on the same exported model, in turns in one page.
//   node bench/chromium.mjs [--backend wasm|webgpu] [--runs N] [--width N --depth N --size N --batch N] [--json FILE]   (after pnpm build)
// Times of WebGPU mean something on a GPU only: on a software adapter they are printed and not written.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { createServer } from 'vite';

const number = (value) => ({ type: 'string', default: String(value) });
const { values } = parseArgs({ options: { backend: { type: 'string', default: 'wasm' }, runs: number(5), width: number(384), depth: number(12), heads: number(6), size: number(16), batch: number(8), json: { type: 'string' } } });
if (!['wasm', 'webgpu'].includes(values.backend)) throw new Error(`--backend is ${values.backend}, expected wasm or webgpu`);
const [runs, width, depth, heads, size, batch] = ['runs', 'width', 'depth', 'heads', 'size', 'batch'].map((name) => {
  const value = Number(values[name]);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} is ${values[name]}, expected a positive integer`);
  return value;
});
const { backend } = values;

const server = await createServer({ root: fileURLToPath(new URL('page', import.meta.url)), configFile: false, logLevel: 'error', server: { host: '127.0.0.1', port: 0, hmr: false, fs: { strict: false } }, optimizeDeps: { exclude: ['onnxruntime-web'] } });
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM_PATH ?? '/usr/bin/chromium', args: ['--no-sandbox', '--enable-unsafe-webgpu', '--enable-features=Vulkan'] });
try {
  await server.listen();
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(error.message));
  await page.exposeFunction('progress', (done, total) => process.stderr.write(`\r${done}/${total} turns\x1b[K${done === total ? '\n' : ''}`));
  await page.goto(server.resolvedUrls.local[0]);
  await page.waitForFunction(() => 'contest' in globalThis, undefined, { timeout: 120_000 });
  const { times, checks, adapter } = await page.evaluate((options) => globalThis.contest(options), { backend, runs, work: { width, depth, heads, size, batch } });
  if (Math.abs(checks.ours - checks.theirs) > 1e-3 * Math.abs(checks.theirs)) throw new Error(`the outputs differ: mean magnitudes ${checks.ours} and ${checks.theirs}`);
  const median = (all) => all.toSorted((a, b) => a - b)[all.length >> 1];
  const [ours, theirs] = [median(times.ours), median(times.theirs)];
  const row = { name: `forward in Chromium, width ${width} × ${depth} blocks × ${(size / 2) ** 2} tokens × batch ${batch}`, backend, peer: `ONNX Runtime web, ${backend === 'wasm' ? 'WASM' : 'WebGPU'}`, ratio: +(theirs / ours).toFixed(2), ours: +ours.toFixed(1), theirs: +theirs.toFixed(1), unit: 'ms', runs, machine: `${cpus().length} × ${cpus()[0].model.trim()}, Chromium ${browser.version().split('.')[0]}${adapter === undefined ? '' : `, ${adapter}`}`, date: new Date().toISOString().slice(0, 10) };
  console.log(`${row.name}, ${backend}: ours ${row.ours} ms, ${row.peer} ${row.theirs} ms: ${row.ratio} times; ${row.machine}`);
  if (values.json !== undefined && /swiftshader|llvmpipe/i.test(adapter ?? '')) console.log(`not written to ${values.json}: ${adapter} is a software adapter`);
  else if (values.json !== undefined) {
    const others = existsSync(values.json) ? JSON.parse(readFileSync(values.json, 'utf8')).filter((other) => other.name !== row.name || other.backend !== row.backend) : [];
    writeFileSync(values.json, `${JSON.stringify([...others, row], null, 2)}\n`);
  }
} finally {
  await browser.close();
  await server.close();
}

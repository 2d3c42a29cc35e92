// Installs the packed packages into the projects beside this file, as a user does, and runs them: one line each.
//   node integrations/run.mjs [project …] [--keep]
import { execFile, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { chromium } from 'playwright-core';
import { open, serve } from './serve.mjs';

const root = new URL('..', import.meta.url).pathname;
const keep = process.argv.includes('--keep');
const asked = process.argv.slice(2).filter((name) => !name.startsWith('--'));
const temporary = mkdtempSync(join(tmpdir(), 'tinyfusion-integrations-'));
const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1', NO_UPDATE_NOTIFIER: '1', npm_config_audit: 'false', npm_config_fund: 'false', npm_config_prefer_offline: 'true', npm_config_loglevel: 'error' };

/** Our code beside tfjs that `npm install @tinyfusion/sampler` and its example load in a browser, gzipped. */
const MOST_BYTES = 60_000;

/** The program of README.md, and what it says to install for it. */
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const [, packagesOfReadme, programOfReadme] = /^npm install (.+)\n```\n\n```ts\n([\s\S]*?)^```/m.exec(readme);

const projects = {
  // the program is JavaScript as it stands
  readme: async (folder) => {
    writeFileSync(join(folder, 'main.mjs'), programOfReadme);
    return expect((await promisify(execFile)(process.execPath, ['main.mjs'], { cwd: folder, env, timeout: 300_000 })).stdout, /^layers \d+( \d+){5} stay: \d+ of \d+ parameters$/m);
  },
  'node-script': async (folder) => {
    await npm(folder, 'run', 'build');
    expect(await npm(folder, 'start', '--silent'), /^kept 0 3$/m);
    const size = await bundledSize(folder);
    if (size >= MOST_BYTES) throw new Error(`the program is ${size} bytes beside tfjs, at most ${MOST_BYTES} are allowed`);
    return `kept 0 3; ${(size / 1000).toFixed(1)} KB gz beside tfjs`;
  },
  worker: async (folder) => expect(await npm(folder, 'start', '--silent'), /images 3×32×32×1 on wasm, main thread free/),
  'vite-app': async (folder) => {
    await npm(folder, 'run', 'build');
    const server = await serve(join(folder, 'dist'));
    try {
      return await inChromium(server.url, { '#gates': /^kept 0 3$/, '#sampling': /^3 images on wasm$/ }, 'canvas');
    } finally {
      await server.close();
    }
  },
  'next-app': async (folder) => {
    await npm(folder, 'run', 'build');
    const port = await open();
    const server = spawn(process.execPath, ['node_modules/next/dist/bin/next', 'start', '--hostname', '127.0.0.1', '--port', String(port)], { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'] });
    const said = collect(server);
    try {
      const url = `http://127.0.0.1:${port}`;
      await until(async () => (await fetch(url)).ok, () => `next did not start: ${said()}`);
      const pruned = await fetch(`${url}/api/prune?keep=1,3,5,7,9,11`);
      if (pruned.headers.get('x-layers') !== '6') throw new Error(`the route answered ${pruned.status}: ${(await pruned.text()).slice(0, 500)}`);
      const { byteLength } = await pruned.arrayBuffer();
      const refused = await fetch(`${url}/api/prune?keep=99`);
      if (refused.status !== 400) throw new Error(`the route answered ${refused.status} to a layer that is not there`);
      return `${await inChromium(url, { '#gates': /^kept 0 3 on wasm$/ })}; route: 6 layers, ${(byteLength / 1e6).toFixed(1)} MB`;
    } finally {
      server.kill();
    }
  },
};

const names = asked.length === 0 ? Object.keys(projects) : asked;
const unknown = names.filter((name) => !Object.hasOwn(projects, name));
if (unknown.length > 0) {
  console.error(`unknown project ${unknown.join(', ')}, expected some of ${Object.keys(projects).join(', ')}`);
  process.exit(1);
}
let failed = 0;
try {
  const from = performance.now();
  const tarballs = await pack(join(temporary, 'packages'));
  console.log(`pack          ok  ${seconds(from)}  ${tarballs.size} packages`);
  for (const name of names) {
    const start = performance.now();
    try {
      const folder = await install(name, tarballs);
      console.log(`${name.padEnd(12)}  ok  ${seconds(start)}  ${await projects[name](folder)}`);
    } catch (error) {
      failed++;
      console.log(`${name.padEnd(12)}  FAILED  ${seconds(start)}\n${String(error.stdout ?? '')}${String(error.stderr ?? '')}${error.message}`);
    }
  }
} finally {
  if (keep) console.log(temporary);
  else rmSync(temporary, { recursive: true, force: true });
}
console.log(`${names.length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);

/** Packs every package that is published. @returns tarballs by name */
async function pack(to) {
  mkdirSync(to, { recursive: true });
  const packed = new Map();
  for (const name of readdirSync(join(root, 'packages'))) {
    const manifest = join(root, 'packages', name, 'package.json');
    if (!existsSync(manifest)) continue;
    const { name: full, version, private: unpublished, dependencies = {} } = JSON.parse(readFileSync(manifest, 'utf8'));
    if (unpublished) continue;
    if (!existsSync(join(root, 'packages', name, 'dist'))) throw new Error(`${full} is not built; run pnpm build first`);
    packed.set(full, { file: join(to, `${full.slice(1).replace('/', '-')}-${version}.tgz`), needs: dependencies });
  }
  await promisify(execFile)('npx', ['--yes', 'pnpm@10.34.9', ...[...packed.keys()].map((name) => `--filter=${name}`), '-r', 'pack', '--pack-destination', to], { cwd: root, env, maxBuffer: 2 ** 26 });
  const missing = [...packed.values()].find(({ file }) => !existsSync(file));
  if (missing !== undefined) throw new Error(`pnpm did not write ${missing.file}`);
  for (const { file } of packed.values()) {
    const { stdout } = await promisify(execFile)('tar', ['-tzf', file]);
    for (const part of ['LICENSE', 'README.md', 'package.json']) if (!stdout.includes(`package/${part}\n`)) throw new Error(`${file} has no ${part}`);
  }
  return packed;
}

/** Copies a project, names the tarballs of all packages it needs, and installs. */
async function install(name, tarballs) {
  const folder = join(temporary, name);
  if (name === 'readme') writeManifest(folder, { private: true, type: 'module', dependencies: Object.fromEntries(packagesOfReadme.split(' ').map((dependency) => [dependency, '*'])) });
  else cpSync(new URL(name, import.meta.url).pathname, folder, { recursive: true, filter: (path) => !/node_modules|\.next|dist$/.test(path.slice(root.length)) });
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const needed = new Set();
  const visit = (dependencies) => {
    for (const dependency of Object.keys(dependencies)) {
      if (!tarballs.has(dependency) || needed.has(dependency)) continue;
      needed.add(dependency);
      visit(tarballs.get(dependency).needs);
    }
  };
  visit(manifest.dependencies);
  for (const dependency of needed) manifest.dependencies[dependency] = `file:${tarballs.get(dependency).file}`;
  writeManifest(folder, manifest);
  await npm(folder, 'install');
  return folder;
}

function writeManifest(folder, manifest) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest, null, 2));
}

async function npm(folder, ...args) {
  const { stdout } = await promisify(execFile)('npm', args, { cwd: folder, env, timeout: 600_000, maxBuffer: 2 ** 26 });
  return stdout;
}

/** Bytes of the project's program for a browser without tfjs, minified and gzipped. */
async function bundledSize(folder) {
  const { build } = await import(join(folder, 'node_modules/esbuild/lib/main.js'));
  const { outputFiles } = await build({ entryPoints: [join(folder, 'main.js')], bundle: true, minify: true, format: 'esm', platform: 'browser', external: ['@tensorflow/*'], write: false });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

/** Opens a page and waits for texts; errors of the page are ours. */
async function inChromium(url, texts, canvas) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM_PATH ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
  try {
    const page = await browser.newPage();
    const errors = [];
    page.on('pageerror', (error) => errors.push(String(error)));
    page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
    await page.goto(url);
    const seen = [];
    for (const [selector, pattern] of Object.entries(texts)) {
      const read = () => page.locator(selector).innerText();
      await until(async () => {
        const text = await read();
        if (text.startsWith('failed')) errors.push(text);
        return errors.length > 0 || pattern.test(text);
      }, async () => `${selector} says ${JSON.stringify(await read())}, expected ${pattern}`);
      if (errors.length > 0) throw new Error(errors.join('\n'));
      seen.push(await read());
    }
    if (canvas !== undefined) {
      const bright = await page.evaluate((selector) => {
        const { width, height } = document.querySelector(selector);
        return document.querySelector(selector).getContext('2d').getImageData(0, 0, width, height).data.filter((v, i) => i % 4 === 0 && v > 127).length;
      }, canvas);
      if (bright < 50) throw new Error(`the canvas is dark: ${bright} bright pixels`);
    }
    return seen.join('; ');
  } finally {
    await browser.close();
  }
}

async function until(done, complaint, limit = 120_000) {
  for (const from = performance.now(); ; ) {
    if (await Promise.resolve(done()).catch(() => false)) return;
    if (performance.now() - from > limit) throw new Error(await complaint());
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

function expect(output, pattern) {
  if (!pattern.test(output)) throw new Error(`it printed ${JSON.stringify(output)}, expected ${pattern}`);
  return output.trim().split('\n').at(-1);
}

function collect(child) {
  let text = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (part) => (text += part));
  return () => text;
}

function seconds(from) {
  return `${((performance.now() - from) / 1000).toFixed(1)} s`.padStart(7);
}

// What `npm test` and `npm run quickstart` do on a fresh machine: install, build, run. Needs Node and git alone.
//   node scripts/start.mjs test [vitest arguments]
//   node scripts/start.mjs quickstart [--fast] [options of `tinyfusion quickstart`]
//   node scripts/start.mjs example NAME [arguments]
//   node scripts/start.mjs studio
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';

const [job, ...rest] = process.argv.slice(2);
const root = new URL('..', import.meta.url).pathname;

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) stop(`Node 20.19 or newer is needed, this is ${process.versions.node}. Get it from https://nodejs.org.`);

// the pnpm that runs us, or the pinned one
const runner = process.env.npm_execpath ?? '';
const pnpm = /pnpm[^/\\]*\.c?js$/.test(runner) ? [process.execPath, runner] : ['npx', '--yes', 'pnpm@10.34.9'];

run('install', [...pnpm, 'install', '--frozen-lockfile', '--prefer-offline']);
run('build', [...pnpm, 'exec', 'turbo', 'run', 'build', '--output-logs=errors-only']);

if (job === 'test') {
  const projects = ['node', 'golden', 'timed'];
  const required = process.env.TINYFUSION_REQUIRE_BROWSER === '1';
  const chromium = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium';
  const loader = ['/usr/lib', '/usr/lib64', '/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu'].some((folder) => existsSync(`${folder}/libvulkan.so.1`));
  const driver = existsSync('/usr/lib/chromium/vk_swiftshader_icd.json') || process.env.VK_DRIVER_FILES !== undefined;
  if (process.platform !== 'linux' || (loader && driver)) projects.push('dawn');
  else if (required) stop('the WebGPU suite must run here, but there is no Vulkan loader or driver (Debian: apt-get install libvulkan1 chromium)');
  else console.log('skipped: the WebGPU suite under Dawn; it needs a Vulkan loader and driver, such as those of Debian’s libvulkan1 and chromium (or set VK_DRIVER_FILES)');
  if (existsSync(chromium)) projects.push('chromium');
  else if (required) stop(`the browser suite must run here, but there is no Chromium at ${chromium}`);
  else console.log('skipped: the browser suite; it needs Chromium (set CHROMIUM_PATH, or apt-get install chromium)');
  run('test', [...pnpm, 'exec', 'vitest', 'run', ...projects.flatMap((p) => ['--project', p]), ...rest]);
} else if (job === 'quickstart') {
  run('quickstart', [process.execPath, 'packages/cli/bin/tinyfusion.mjs', 'quickstart', ...rest]);
} else if (job === 'example') {
  // as JavaScript, since Node runs TypeScript from 22.18 on only; beside the packages that it imports
  const [name, ...args] = rest;
  const names = readdirSync(`${root}examples`).filter((file) => file.endsWith('.ts')).map((file) => file.slice(0, -3));
  if (!names.includes(name)) stop(`there is no example ${JSON.stringify(name ?? '')}, expected one of ${names.join(', ')}`);
  const { default: ts } = await import('typescript');
  const { outputText } = ts.transpileModule(readFileSync(`${root}examples/${name}.ts`, 'utf8'), { compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 } });
  const folder = `${root}examples/node_modules/.cache/`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}${name}.mjs`, outputText);
  run(`example ${name}`, [process.execPath, `${folder}${name}.mjs`, ...args], process.env.INIT_CWD);
} else if (job === 'studio') run('studio', [...pnpm, 'exec', 'vite', 'preview', 'examples/studio', '--open', ...rest]);
else stop(`unknown job ${JSON.stringify(job)}, expected test, quickstart, example or studio`);

function run(name, [command, ...args], cwd = root) {
  const { status, signal, error } = spawnSync(command, args, { cwd, stdio: 'inherit', env: { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1' }, shell: process.platform === 'win32' });
  if (error) stop(`${name} could not start: ${error.message}`);
  if (signal !== null) process.exit(130);
  if (status !== 0) process.exit(status ?? 1);
}

function stop(message) {
  console.error(message);
  process.exit(1);
}

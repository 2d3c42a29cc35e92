// Publishes what has no changesets left, or shows what would be published.
//   node scripts/release.mjs          under GitHub Actions, after the versions were raised
//   node scripts/release.mjs --dry    anywhere: versions and tarballs are made in a copy, and nothing is sent
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = new URL('..', import.meta.url).pathname;
const pnpm = ['npx', '--yes', 'pnpm@10.34.9'];

if (process.argv.includes('--dry')) dry();
else publish();

function publish() {
  const { GITHUB_SERVER_URL: server, GITHUB_REPOSITORY: repository } = process.env;
  if (server === undefined || repository === undefined) stop('a release is made by the workflow; see what it would be with --dry');
  // provenance ties a package to the repository that its manifest names
  for (const path of manifests(root)) edit(path, (manifest) => ({ ...manifest, repository: { type: 'git', url: `git+${server}/${repository}.git`, directory: path.slice(root.length, -'/package.json'.length) } }));
  run(root, ...pnpm, 'exec', 'changeset', 'publish');
}

function dry() {
  const folder = mkdtempSync(join(tmpdir(), 'tinyfusion-release-'));
  try {
    run(root, 'git', 'clone', '--quiet', '--local', '.', folder);
    run(folder, ...pnpm, 'install', '--frozen-lockfile', '--prefer-offline', '--silent');
    run(folder, ...pnpm, 'exec', 'turbo', 'run', 'build', `--cache-dir=${join(root, '.turbo/cache')}`, '--output-logs=errors-only');
    run(folder, ...pnpm, 'exec', 'changeset', 'status');
    run(folder, ...pnpm, 'exec', 'changeset', 'version');
    const published = manifests(folder).map((path) => JSON.parse(readFileSync(path, 'utf8'))).filter((manifest) => !manifest.private);
    for (const { name, version } of published) if (!/^\d+\.\d+\.\d+$/.test(version)) stop(`${name} would be published as ${version}`);
    if (new Set(published.map(({ version }) => version)).size !== 1) stop('the packages would not have one version');
    run(folder, ...pnpm, '-r', 'publish', '--dry-run', '--no-git-checks', '--access', 'public');
    console.log(`${published.length} packages would be published as ${published[0].version}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function manifests(folder) {
  return readdirSync(join(folder, 'packages')).map((name) => join(folder, 'packages', name, 'package.json'));
}

function edit(path, change) {
  writeFileSync(path, `${JSON.stringify(change(JSON.parse(readFileSync(path, 'utf8'))), null, 2)}\n`);
}

function run(cwd, command, ...args) {
  try {
    execFileSync(command, args, { cwd, stdio: 'inherit', env: { ...process.env, TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1' } });
  } catch {
    stop(`${command} ${args.join(' ')} failed`);
  }
}

function stop(message) {
  console.error(message);
  process.exitCode = 1;
  throw new Error(message);
}

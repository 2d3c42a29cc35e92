// Every program of every README and guide runs as it stands, on the sources; what a page includes or links is there.
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { program } from '@tinyfusion/cli';
import { describe, expect, it } from 'vitest';
import { root, runProgram } from './run-program.js';

const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const names = (folder: string): string[] => readdirSync(join(root, folder)).toSorted();
const guides = [...names('docs').filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`), ...['docs/guide', 'docs/results'].flatMap((folder) => names(folder).filter((name) => name.endsWith('.md')).map((name) => `${folder}/${name}`))];
const packages = names('packages').map((name) => `packages/${name}/README.md`).filter((path) => existsSync(join(root, path)));
const pages = ['README.md', 'CONTRIBUTING.md', 'examples/README.md', 'examples/studio/README.md', 'integrations/README.md', ...guides, ...packages];

describe('programs in READMEs and guides', () => {
  const programs = pages.flatMap((path) => Array.from(read(path).matchAll(/^```ts\n([\s\S]*?)^```/gm), ([, code], i) => [`${path} ${i + 1}`, code!] as const));

  it('every package has one', () => {
    for (const path of packages) expect(programs.some(([name]) => name.startsWith(path)), path).toBe(true);
  });

  // what is only there because something else needs it does not resolve under pnpm and Yarn's PnP
  it.each(['README.md', ...packages])('%s installs what its programs import', (path) => {
    const text = read(path);
    const installed = Array.from(text.matchAll(/^npm install (.*)$/gm), ([, names]) => names!.split(' ')).flat();
    const imported = programs.filter(([name]) => name.startsWith(`${path} `)).flatMap(([, code]) => Array.from(code.matchAll(/^import (?:[^';]* from )?'((?!node:)(?:@[^/']+\/)?[^/']+)/gm), ([, name]) => name!));
    expect(imported).not.toEqual([]);
    expect(installed).toEqual(expect.arrayContaining(imported));
  });

  it('their types are right', async () => {
    // below test/, where every package is installed
    const folder = join(root, 'test/node_modules/.cache/readme-types');
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    for (const [name, code] of programs) writeFileSync(join(folder, `${name.replaceAll(/[ /]/g, '-')}.ts`), code);
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ extends: join(root, 'tsconfig.base.json'), compilerOptions: { types: ['node'] }, include: ['*.ts'] }));
    const errors = await promisify(execFile)(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder]).then(() => '', ({ stdout }: { stdout: string }) => stdout);
    expect(errors).toBe('');
  }, 600_000);

  it.each(programs)('%s', async (name, code) => expect(await runProgram(name, code)).not.toBe(''), 120_000);
});

/** A shell's words; quotes hold several together. */
const words = (line: string): string[] => Array.from(line.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g), ([, single, double, plain]) => single ?? double ?? plain!);

describe('commands in READMEs and guides', () => {
  const shell = pages.map((path) => [path, Array.from(read(path).matchAll(/^[ ]*```sh\n([\s\S]*?)^[ ]*```/gm), ([, block]) => block!.replaceAll(/\\\n/g, ' ').split('\n').map((line) => line.replace(/(^|\s)#.*$/, '').trim())).flat()] as const);

  it.each(shell)('%s has commands and options that there are', (_, lines) => {
    for (const line of lines) {
      const [, job] = /(?:^|\s)npx tinyfusion\s+(.+)$/.exec(line) ?? [];
      if (job === undefined || job === '--help') continue;
      const main = program();
      for (const command of [main, ...main.commands]) command.exitOverride().configureOutput({ writeErr: () => {}, writeOut: () => {} });
      for (const command of main.commands) command.action(() => {});
      expect(() => main.parse(words(job), { from: 'user' }), line).not.toThrow();
    }
  });

  it.each(shell)('%s has scripts and packages that there are', (_, lines) => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    for (const line of lines) {
      const script = /^(?:npm run|pnpm(?: run)?) ([\w:-]+)/.exec(line)?.[1];
      if (script !== undefined) expect(scripts, line).toHaveProperty([script]);
      const example = /^npm run example -- ([\w-]+)/.exec(line)?.[1];
      if (example !== undefined) expect(existsSync(join(root, 'examples', `${example}.ts`)), line).toBe(true);
      for (const [, name] of line.matchAll(/@tinyfusion\/([\w-]+)/g)) expect(existsSync(join(root, 'packages', name!, 'package.json')), line).toBe(true);
    }
  });
});

describe('pages', () => {
  it('have the numbers that were measured', () => expect(() => execFileSync(process.execPath, [join(root, 'scripts/tables.mjs'), '--check'], { stdio: 'pipe' })).not.toThrow());

  it('the parity page names suites that there are', () => {
    const suites = Array.from(read('docs/guide/parity.md').matchAll(/\| `([\w./-]+)` \|$/gm), ([, suite]) => suite!);
    expect(suites.length).toBeGreaterThan(20);
    for (const suite of suites) expect(existsSync(join(root, suite)) || existsSync(join(root, `test/golden/${suite}.golden.test.ts`)), suite).toBe(true);
  });

  it('every code of an error is on the page of what goes wrong, and no other', () => {
    const sources = [...names('packages').map((name) => `packages/${name}/src`), 'examples/studio/src'].filter((folder) => existsSync(join(root, folder)));
    const files = sources.flatMap((folder) => readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts')).map((path) => `${folder}/${path}`));
    const lines = files.flatMap((path) => read(path).split('\n')).filter((line) => /new TinyFusionError\(|super\('[A-Z]/.test(line));
    const codes = lines.flatMap((line) => Array.from(line.matchAll(/'([A-Z]+(?:_[A-Z]+)*)'/g), ([, code]) => code!));
    const told = Array.from(read('docs/guide/troubleshooting.md').matchAll(/^\| `([A-Z_]+)` \|/gm), ([, code]) => code!);
    expect(codes.length).toBeGreaterThan(10);
    expect(told.toSorted()).toEqual([...new Set(codes)].toSorted());
  });

  it('README.md lists every package', () => {
    for (const path of packages) expect(read('README.md')).toContain(`(${dirname(path)})`);
  });

  it.each(pages)('%s leads to what is there', (path) => {
    const text = read(path).replaceAll(/^```[\s\S]*?^```|`[^`]*`/gm, '');
    const links = Array.from(text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g), ([, to]) => to!).filter((to) => !/^(https?:|mailto:|\/)/.test(to) && !to.includes('/api/') && !to.startsWith('api/'));
    expect(links.filter((to) => !existsSync(join(root, dirname(path), to)))).toEqual([]);
  });

  it.each(guides)('%s shows code that is tested', (path) => {
    const text = read(path);
    // a snippet that is not found would be shown as the words "Code snippet path not found"
    for (const [, from, region] of text.matchAll(/^<<< ([^#{\s]+)(?:#([\w-]+))?/gm)) {
      const file = join(root, dirname(path), from!);
      expect(existsSync(file), from).toBe(true);
      if (region !== undefined) expect(readFileSync(file, 'utf8'), `${from}#${region}`).toContain(`#region ${region}`);
    }
    // programs are ts and run above, or are included; nothing else claims to be one
    expect(text.match(/^```(?:tsx?|js|javascript|typescript|mjs)\b.*$/gm)?.filter((fence) => fence !== '```ts') ?? []).toEqual([]);
  });
});

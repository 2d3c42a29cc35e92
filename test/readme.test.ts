// Every program of every README and guide runs as it stands, on the sources; what a page includes or links is there.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { root, runProgram } from './run-program.js';

const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const names = (folder: string): string[] => readdirSync(join(root, folder)).toSorted();
const guides = [...names('docs').filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`), ...names('docs/guide').filter((name) => name.endsWith('.md')).map((name) => `docs/guide/${name}`)];
const packages = names('packages').map((name) => `packages/${name}/README.md`).filter((path) => existsSync(join(root, path)));
const pages = ['README.md', 'CONTRIBUTING.md', 'examples/README.md', ...guides, ...packages];

describe('programs in READMEs and guides', () => {
  const programs = pages.flatMap((path) => Array.from(read(path).matchAll(/^```ts\n([\s\S]*?)^```/gm), ([, code], i) => [`${path} ${i + 1}`, code!] as const));

  it('every package has one', () => {
    for (const path of packages) expect(programs.some(([name]) => name.startsWith(path)), path).toBe(true);
  });

  it.each(programs)('%s', async (name, code) => expect(await runProgram(name, code)).not.toBe(''), 120_000);
});

describe('pages', () => {
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
